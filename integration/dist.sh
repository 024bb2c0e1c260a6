#!/usr/bin/env bash
# Makes what is published of a version, for Linux on this machine's architecture:
#   integration/dist.sh [FOLDER]      by default target/dist: ferromesh-VERSION-linux-ARCH.tar.gz, ferromesh_VERSION_ARCH.deb,
#                                     ferromesh-VERSION.cdx.json (what it is made of, CycloneDX) and SHA256SUMS
# The same programs give the same bytes: names in order, no owner, one time (SOURCE_DATE_EPOCH, else that of the last commit).
# FERROMESH_BIN: programs from there, instead of integration/build.sh dist.
set -euo pipefail
cd "$(dirname "$0")/.."

die() { echo "dist: $*" >&2; exit 1; }

version=$(sed -n '/^\[workspace\.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)
machine=$(uname -m)
case $machine in x86_64) debian=amd64 ;; aarch64) debian=arm64 ;; *) die "no package for $machine" ;; esac
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2> /dev/null || echo 0)}
export LC_ALL=C TZ=UTC
umask 022

out=${1:-$PWD/target/dist}
mkdir -p "$out"
out=$(cd "$out" && pwd)
programs=${FERROMESH_BIN:-$(bash integration/build.sh dist)}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Files by their places in a system, as the package has them; the archive has the same below one folder.
stage() { # FOLDER
  local root=$1 program shell
  mkdir -p "$root"/usr/bin "$root"/usr/lib/systemd/system "$root"/usr/lib/sysusers.d "$root"/usr/share/man/man1 \
    "$root"/usr/share/doc/ferromesh "$root"/usr/share/bash-completion/completions "$root"/usr/share/zsh/site-functions \
    "$root"/usr/share/fish/vendor_completions.d "$root"/etc/ferromesh/mesh "$root"/etc/ferromesh/proxy
  for program in ferromesh ferromesh-proxy; do
    [ -f "$programs/$program" ] || die "$programs/$program is not there: run integration/build.sh dist"
    strip -o "$root/usr/bin/$program" "$programs/$program"
    chmod 755 "$root/usr/bin/$program"
    "$programs/$program" man "$root/usr/share/man/man1"
    "$programs/$program" completion bash > "$root/usr/share/bash-completion/completions/$program"
    "$programs/$program" completion zsh > "$root/usr/share/zsh/site-functions/_$program"
    "$programs/$program" completion fish > "$root/usr/share/fish/vendor_completions.d/$program.fish"
  done
  gzip -9n "$root"/usr/share/man/man1/*.1
  install -m 644 integration/dist/ferromesh.service integration/dist/ferromesh-proxy@.service "$root/usr/lib/systemd/system/"
  install -m 644 integration/dist/sysusers.conf "$root/usr/lib/sysusers.d/ferromesh.conf"
  install -m 644 integration/dist/serve.yaml "$root/etc/ferromesh/serve.yaml"
  install -m 644 integration/dist/mesh.yaml "$root/etc/ferromesh/mesh/00-mesh.yaml"
  install -m 644 integration/dist/proxy.env "$root/etc/ferromesh/proxy/example.env"
  install -m 644 README.md CHANGELOG.md LICENSE "$root/usr/share/doc/ferromesh/"
  parts > "$root/usr/share/doc/ferromesh/ferromesh.cdx.json"
}

# What the two programs are made of: every crate of Cargo.lock that they link, with its licence and its hash.
parts() {
  cargo tree --locked --offline -p ferromesh-control-plane -p ferromesh-dataplane -e normal --prefix none -f '{p}|{l}' \
    | sed 's/ (proc-macro)//; s/ (\*)//; s/ (\/[^|]*)//' | sort -u | awk -v version="$version" '
    function quoted(text) { gsub(/["\\]/, "", text); return "\"" text "\"" }
    BEGIN {
      while ((getline line < "Cargo.lock") > 0) {
        if (line ~ /^name = /) { split(line, part, "\""); name = part[2] }
        if (line ~ /^version = /) { split(line, part, "\""); number = part[2] }
        if (line ~ /^checksum = /) { split(line, part, "\""); hash[name " " number] = part[2] }
      }
      printf "{\n  \"bomFormat\": \"CycloneDX\", \"specVersion\": \"1.5\", \"version\": 1,\n"
      printf "  \"metadata\": { \"component\": { \"type\": \"application\", \"name\": \"ferromesh\", \"version\": %s } },\n", quoted(version)
      printf "  \"components\": ["
    }
    {
      bar = index($0, "|"); split(substr($0, 1, bar - 1), crate, " "); licence = substr($0, bar + 1)
      gsub(/ *\/ */, " OR ", licence)
      sub(/^v/, "", crate[2])
      if (crate[1] == "" || (crate[1] " " crate[2]) in seen) next
      seen[crate[1] " " crate[2]] = 1
      printf "%s\n    { \"type\": \"library\", \"name\": %s, \"version\": %s, \"purl\": %s", comma, quoted(crate[1]), quoted(crate[2]),
        quoted("pkg:cargo/" crate[1] "@" crate[2])
      if (licence != "") printf ", \"licenses\": [{ \"expression\": %s }]", quoted(licence)
      sum = hash[crate[1] " " crate[2]]
      if (sum != "") printf ", \"hashes\": [{ \"alg\": \"SHA-256\", \"content\": %s }]", quoted(sum)
      printf " }"; comma = ","
    }
    END { printf "\n  ]\n}\n" }'
}

archive() { # ROOT
  local name=ferromesh-$version-linux-$machine
  mkdir -p "$work/$name"
  cp -R "$1/." "$work/$name/"
  tar --create --directory "$work" --sort=name --format=ustar --owner=0 --group=0 --numeric-owner --mode=go-w \
    --mtime="@$SOURCE_DATE_EPOCH" "$name" | gzip -n > "$out/$name.tar.gz"
}

package() { # ROOT
  local control=$1/DEBIAN
  mkdir -p "$control"
  sed -e "s/@VERSION@/$version/" -e "s/@ARCHITECTURE@/$debian/" \
    -e "s/@SIZE@/$(du -sk --exclude DEBIAN "$1" | cut -f1)/" integration/dist/debian/control > "$control/control"
  (cd "$1" && find etc -type f | sort | sed 's|^|/|') > "$control/conffiles"
  (cd "$1" && find usr etc -type f | sort | xargs md5sum) > "$control/md5sums"
  install -m 755 integration/dist/debian/postinst integration/dist/debian/prerm integration/dist/debian/postrm "$control/"
  find "$1" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +
  dpkg-deb --root-owner-group -Zgzip -z6 --build "$1" "$out/ferromesh_${version}_$debian.deb" > /dev/null
}

stage "$work/root"
archive "$work/root"
package "$work/root"
cp "$work/root/usr/share/doc/ferromesh/ferromesh.cdx.json" "$out/ferromesh-$version.cdx.json"
cd "$out"
rm -f SHA256SUMS
sha256sum ferromesh* > SHA256SUMS
cat SHA256SUMS
