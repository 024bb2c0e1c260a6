#!/usr/bin/env bash
# Builds the images with buildah, from the Dockerfiles and the static programs; no daemon, no network, no base image.
#   integration/images.sh [NAME...]   NAME: control-plane proxy envoy sample; all of them if none is given
# Prints one archive (docker save) a line, for integration/kube.sh load; sizes go to stderr.
# An image is built again when something in it changed. FERROMESH_BIN: programs from there, instead of integration/build.sh.
# What ships is FERROMESH_BIN=$(integration/build.sh dist) integration/images.sh; the limits of size are for that.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { echo "images: $*" >&2; }
die() { say "$*"; exit 1; }

version=$(sed -n '/^\[workspace\.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)
out=$PWD/target/images

dockerfile() { case $1 in sample) echo integration/kube/Dockerfile.sample ;; *) echo "images/Dockerfile.$1" ;; esac; }
limit() { case $1 in envoy) echo 140 ;; *) echo 40 ;; esac; } # MB of files

program() { # NAME FOLDER: one of ours, without symbols
  [ -f "$programs/$1" ] || die "$programs/$1 is not there: run integration/build.sh"
  strip -o "$2/$1" "$programs/$1"
}

envoy() { # FOLDER
  local library
  cp --dereference .tools/bin/envoy "$1/envoy" || die "Envoy is not installed: run integration/peers.sh"
  for library in $(ldd "$1/envoy" | grep -o '/[^ ]*'); do install -D "$library" "$1/libraries/$library"; done
}

# The roots of the public PKI, as Mozilla judges them and Debian packages them: the package's files in the order of their
# names, so that the same package gives the same bytes. Not this machine's own bundle, which may hold roots that somebody added here.
roots() { # FOLDER
  local source=/usr/share/ca-certificates/mozilla bundle=$1/roots/etc/ssl/certs/ca-certificates.crt
  [ -d $source ] || die "$source is not there: install the package ca-certificates"
  mkdir -p "${bundle%/*}"
  find $source -name '*.crt' -print0 | LC_ALL=C sort -z | xargs -0 awk 1 > "$bundle"
  say "$(grep -c BEGIN "$bundle") roots of ca-certificates $(dpkg-query --show --showformat '${Version}' ca-certificates 2> /dev/null)"
}

stage() { # NAME FOLDER: the files that its Dockerfile copies
  case $1 in
    control-plane) program ferromesh "$2"; roots "$2" ;;
    proxy) program ferromesh-proxy "$2"; roots "$2" ;;
    envoy) program ferromesh-proxy "$2"; roots "$2"; envoy "$2" ;;
    sample) program fm-peer "$2" ;;
    *) die "unknown image $1; expected control-plane, proxy, envoy or sample" ;;
  esac
}

buildah() { command buildah --root "$1/store" --runroot "$1/run" --storage-driver vfs "${@:2}"; }

pack() { # NAME CONTEXT ARCHIVE
  local scratch image=docker.io/ferromesh/$1:$version
  scratch=$(mktemp -d)
  # shellcheck disable=SC2064
  trap "rm -rf '$scratch'" RETURN
  buildah "$scratch" bud --quiet --isolation chroot --timestamp 0 --build-arg "VERSION=$version" --file "$(dockerfile "$1")" --tag "$image" "$2" > /dev/null
  rm -f "$3"
  buildah "$scratch" push --quiet "$image" "docker-archive:$3:$image"
}

measure() { # NAME CONTEXT
  local bytes
  bytes=$(find "$2" -type f -printf '%s\n' | awk '{ sum += $1 } END { print sum }')
  say "ferromesh/$1:$version $((bytes / 1000000)) MB"
  # What is not optimised over all crates is for tests, and may be larger.
  [ "$bytes" -le $(($(limit "$1") * 1000000)) ] || [ "${programs##*/}" != dist ] || die "$1 has $bytes bytes, more than its limit of $(limit "$1") MB"
}

build() { # NAME
  local context=$out/$1 archive=$out/$1.tar content
  rm -rf "$context"; mkdir -p "$context"
  stage "$1" "$context"
  measure "$1" "$context"
  content=$({ echo "$version"; cat "$(dockerfile "$1")"; cd "$context"; find . -type f -exec sha256sum {} + | sort; } | sha256sum)
  if [ ! -f "$archive" ] || [ "$(cat "$archive.content" 2> /dev/null)" != "$content" ]; then
    pack "$1" "$context" "$archive"
    echo "$content" > "$archive.content"
  fi
  rm -rf "$context"
  echo "$archive"
}

command -v buildah > /dev/null || die "buildah is not installed: run integration/peers.sh kube"
programs=${FERROMESH_BIN:-$(integration/build.sh)}
[ $# -gt 0 ] || set -- control-plane proxy envoy sample
for name in "$@"; do build "$name"; done
