// Writes a container image FROM scratch as an OCI archive, which containerd, podman and Docker import. No engine, no
// daemon, no root; the same input gives the same bytes.
//
//	image [-user UID] [-env NAME=VALUE]... OUT.tar NAME:TAG ENTRYPOINT[,ARGUMENT...] FILE=PATH...
package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path"
	"runtime"
	"slices"
	"strings"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
}

func run(arguments []string) error {
	flags := flag.NewFlagSet("image", flag.ContinueOnError)
	user := flags.String("user", "", "user id that the program runs as; root if absent")
	var environment []string
	flags.Func("env", "NAME=VALUE of the program's environment, repeatable", func(pair string) error {
		environment = append(environment, pair)
		return nil
	})
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	if flags.NArg() < 4 {
		return errors.New("usage: image [-user UID] [-env NAME=VALUE]... OUT.tar NAME:TAG ENTRYPOINT[,ARGUMENT...] FILE=PATH...")
	}
	layer, err := layer(flags.Args()[3:])
	if err != nil {
		return err
	}
	program := map[string]any{"Entrypoint": strings.Split(flags.Arg(2), ","), "WorkingDir": "/"}
	if *user != "" {
		program["User"] = *user
	}
	if environment != nil {
		program["Env"] = environment
	}
	archive, err := archive(fullName(flags.Arg(1)), program, layer)
	if err != nil {
		return err
	}
	return os.WriteFile(flags.Arg(0), archive, 0o644)
}

// fullName is how runtimes store a name that leaves out its registry: `cart:1` is `docker.io/library/cart:1`.
func fullName(name string) string {
	if !strings.Contains(path.Base(name), ":") {
		name += ":latest"
	}
	registry, _, nested := strings.Cut(name, "/")
	switch {
	case !nested:
		return "docker.io/library/" + name
	case !strings.ContainsAny(registry, ".:") && registry != "localhost":
		return "docker.io/" + name
	}
	return name
}

// layer is the file system: the given files with their folders, and a /tmp that everyone may write.
func layer(pairs []string) ([]byte, error) {
	var buffer bytes.Buffer
	writer := tar.NewWriter(&buffer)
	folders := map[string]bool{".": true, "tmp": true}
	if err := writer.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: "tmp/", Mode: 0o1777}); err != nil {
		return nil, err
	}
	for _, pair := range pairs {
		file, inside, found := strings.Cut(pair, "=")
		if !found || !path.IsAbs(inside) {
			return nil, fmt.Errorf("%q: expected FILE=PATH with an absolute PATH in the image", pair)
		}
		if err := add(writer, folders, file, strings.TrimPrefix(path.Clean(inside), "/")); err != nil {
			return nil, err
		}
	}
	if err := writer.Close(); err != nil {
		return nil, err
	}
	return buffer.Bytes(), nil
}

// add writes one file of the layer, behind the folders on its way that are not there yet.
func add(writer *tar.Writer, folders map[string]bool, file, inside string) error {
	content, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	kind, err := os.Stat(file)
	if err != nil {
		return err
	}
	var missing []string
	for folder := path.Dir(inside); !folders[folder]; folder = path.Dir(folder) {
		folders[folder] = true
		missing = append(missing, folder)
	}
	for _, folder := range slices.Backward(missing) {
		if err := writer.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: folder + "/", Mode: 0o755}); err != nil {
			return err
		}
	}
	header := tar.Header{Typeflag: tar.TypeReg, Name: inside, Mode: int64(kind.Mode().Perm()), Size: int64(len(content))}
	if err := writer.WriteHeader(&header); err != nil {
		return err
	}
	_, err = writer.Write(content)
	return err
}

// A blob of an OCI layout, named by what it contains.
type blob struct {
	kind    string
	content []byte
}

func (b blob) digest() string {
	return fmt.Sprintf("%x", sha256.Sum256(b.content))
}

func (b blob) descriptor() map[string]any {
	return map[string]any{"mediaType": b.kind, "digest": "sha256:" + b.digest(), "size": len(b.content)}
}

const oci = "application/vnd.oci.image."

// encoded is a blob of JSON.
func encoded(kind string, value any) (blob, error) {
	content, err := json.Marshal(value)
	return blob{kind: kind, content: content}, err
}

// archive is an OCI layout with one image, as https://github.com/opencontainers/image-spec describes it.
func archive(name string, program map[string]any, files []byte) ([]byte, error) {
	layer := blob{kind: oci + "layer.v1.tar", content: files}
	config, err := encoded(oci+"config.v1+json", map[string]any{
		"architecture": runtime.GOARCH, "os": "linux", "config": program,
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{"sha256:" + layer.digest()}},
	})
	if err != nil {
		return nil, err
	}
	manifest, err := encoded(oci+"manifest.v1+json", map[string]any{
		"schemaVersion": 2, "mediaType": oci + "manifest.v1+json",
		"config": config.descriptor(), "layers": []any{layer.descriptor()},
	})
	if err != nil {
		return nil, err
	}
	entry := manifest.descriptor()
	// containerd takes the whole name from the first annotation, other tools from the second.
	entry["annotations"] = map[string]string{"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name}
	index, err := encoded(oci+"index.v1+json", map[string]any{"schemaVersion": 2, "mediaType": oci + "index.v1+json", "manifests": []any{entry}})
	if err != nil {
		return nil, err
	}
	return layout(index, layer, config, manifest)
}

func layout(index blob, blobs ...blob) ([]byte, error) {
	var buffer bytes.Buffer
	writer := tar.NewWriter(&buffer)
	write := func(name string, content []byte) error {
		if err := writer.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(content))}); err != nil {
			return err
		}
		_, err := writer.Write(content)
		return err
	}
	if err := write("oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`)); err != nil {
		return nil, err
	}
	for _, blob := range blobs {
		if err := write("blobs/sha256/"+blob.digest(), blob.content); err != nil {
			return nil, err
		}
	}
	if err := write("index.json", index.content); err != nil {
		return nil, err
	}
	err := writer.Close()
	return buffer.Bytes(), err
}
