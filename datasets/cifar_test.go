package datasets

import (
	"archive/tar"
	"bytes"
	"crypto/md5"
	"encoding/hex"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"
)

// tinyCIFAR is the format of a data set of 2+1 training images and 1 test image with one label byte of 10 values.
func tinyCIFAR() *cifar {
	return newTinyCIFAR([]int{10})
}

func newTinyCIFAR(labels []int) *cifar {
	c := &cifar{name: "tiny", classes: cifar10.classes, labels: labels, files: Files{
		Members: []Member{{Name: "one.bin", Size: 2}, {Name: "two.bin", Size: 1}, {Name: "test.bin", Size: 1}},
		Archive: "tiny.tar.gz", Folder: "tiny-bin",
	}}
	for i := range c.files.Members {
		m := &c.files.Members[i]
		m.Size *= c.record()
		m.MD5 = md5Of(tinyMember(c, i))
	}
	return c
}

// tinyMember is the content of a member: image k of the data set has label k in every label byte and pixels from k on.
func tinyMember(c *cifar, member int) []byte {
	var out []byte
	first := c.images(c.files.Members[:member])
	for k := first; k < first+c.images(c.files.Members[member:member+1]); k++ {
		out = append(out, bytes.Repeat([]byte{byte(k)}, len(c.labels))...)
		for i := range cifarImage {
			out = append(out, byte(k+i))
		}
	}
	return out
}

func md5Of(data []byte) string {
	sum := md5.Sum(data)
	return hex.EncodeToString(sum[:])
}

// tarEntry is a file of an archive.
type tarEntry struct {
	name string
	data []byte
	kind byte
}

func tarOf(t testing.TB, entries ...tarEntry) []byte {
	var buffer bytes.Buffer
	w := tar.NewWriter(&buffer)
	for _, e := range entries {
		header := &tar.Header{Name: e.name, Size: int64(len(e.data)), Mode: 0o644, Typeflag: e.kind}
		if e.kind == tar.TypeSymlink {
			header.Linkname = "/etc/passwd"
		}
		require.NoError(t, w.WriteHeader(header))
		_, err := w.Write(e.data)
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	return buffer.Bytes()
}

// tinyEntries is the archive's content, not in the order of the members.
func tinyEntries(c *cifar) []tarEntry {
	return []tarEntry{
		{name: "tiny-bin", kind: tar.TypeDir},
		{name: "tiny-bin/readme.html", data: []byte("<html>")},
		{name: "tiny-bin/test.bin", data: tinyMember(c, 2)},
		{name: "./tiny-bin/two.bin", data: tinyMember(c, 1)},
		{name: "two.bin", data: []byte("elsewhere")},
		{name: "tiny-bin/one.bin", data: tinyMember(c, 0)},
	}
}

func tinyCIFARFolder(c *cifar, within string) fstest.MapFS {
	folder := fstest.MapFS{}
	for i, m := range c.files.Members {
		folder[within+m.Name] = &fstest.MapFile{Data: tinyMember(c, i)}
	}
	return folder
}

func TestCIFARForms(t *testing.T) {
	for _, labels := range [][]int{{10}, {5, 10}} {
		c := newTinyCIFAR(labels)
		zipped := tinyCIFARFolder(c, "")
		zipped["two.bin.gz"] = &fstest.MapFile{Data: compressed(zipped["two.bin"].Data)}
		delete(zipped, "two.bin")
		for name, folder := range map[string]fstest.MapFS{
			"files":          tinyCIFARFolder(c, ""),
			"folder":         tinyCIFARFolder(c, "tiny-bin/"),
			"one compressed": zipped,
			"archive":        {"tiny.tar.gz": {Data: compressed(tarOf(t, tinyEntries(c)...))}},
		} {
			t.Run(name, func(t *testing.T) {
				split, err := c.load(folder)
				require.NoError(t, err)
				require.NoError(t, split.Train.Validate())
				require.NoError(t, split.Test.Validate())
				require.Equal(t, []uint16{0, 1, 2}, split.Train.Labels)
				require.Equal(t, []uint16{3}, split.Test.Labels)
				require.Equal(t, tinyMember(c, 1)[len(labels):], split.Train.Image(2))
				require.Equal(t, uint8(3), split.Test.Pixels[0])
				require.Equal(t, []float32{.2470, .2435, .2616}, split.Test.Std)
			})
		}
	}
}

// cifarDefects maps a defect to the archive's content, before compression, and what is said about it.
func cifarDefects(t testing.TB) map[string]struct {
	data []byte
	want string
} {
	c := tinyCIFAR()
	entries := func(change func([]tarEntry) []tarEntry) []byte {
		return compressed(tarOf(t, change(tinyEntries(c))...))
	}
	whole := compressed(tarOf(t, tinyEntries(c)...))
	return map[string]struct {
		data []byte
		want string
	}{
		"empty":            {nil, "tiny.tar.gz: no tiny-bin/one.bin in the archive"},
		"text":             {bytes.Repeat([]byte("text"), 500), "tiny.tar.gz: corrupt: archive/tar: invalid tar header"},
		"gzip header only": {whole[:10], "truncated"},
		"gzip truncated":   {whole[:len(whole)/2], "truncated"},
		"gzip no checksum": {whole[:len(whole)-8], "truncated"},
		"gzip checksum":    {changed(whole, -8), "corrupt gzip: gzip: invalid checksum"},
		"gzip block":       {changed(whole, 10), "corrupt gzip: flate: corrupt input"},
		"gzip trailing":    {append(bytes.Clone(whole), 1, 2, 3, 4, 5, 6, 7, 8, 9, 10), "corrupt gzip: gzip: invalid header"},
		"tar truncated":    {compressed(tarOf(t, tinyEntries(c)...)[:4000]), "truncated"},
		"missing member":   {entries(func(e []tarEntry) []tarEntry { return e[:5] }), "no tiny-bin/one.bin in the archive"},
		"member twice":     {entries(func(e []tarEntry) []tarEntry { return append(e, e[2]) }), "tiny.tar.gz/test.bin: twice in the archive"},
		"member too long": {entries(func(e []tarEntry) []tarEntry {
			e[2].data = append(e[2].data, 0)
			return e
		}), "tiny.tar.gz/test.bin: 3074 bytes; expected 3073"},
		"member too short": {entries(func(e []tarEntry) []tarEntry {
			e[2].data = e[2].data[:100]
			return e
		}), "tiny.tar.gz/test.bin: 100 bytes; expected 3073"},
		"link for a member": {entries(func(e []tarEntry) []tarEntry {
			e[2].data, e[2].kind = nil, tar.TypeSymlink
			return e
		}), "no tiny-bin/test.bin in the archive"},
		"changed pixel": {entries(func(e []tarEntry) []tarEntry {
			e[3].data = changed(e[3].data, -1)
			return e
		}), "tiny.tar.gz/two.bin: MD5 of the uncompressed content is "},
		"label without class": {entries(func(e []tarEntry) []tarEntry {
			e[2].data[0] = 10
			return e
		}), "tiny.tar.gz/test.bin: label 10 of image 0; there are 10 classes"},
		"many entries": {entries(func(e []tarEntry) []tarEntry {
			return append(slices.Repeat([]tarEntry{{name: "other"}}, maxOtherEntries+10), e...)
		}), "more than 1003 entries"},
	}
}

func TestCIFARRefusesArchives(t *testing.T) {
	defects := cifarDefects(t)
	bomb := tarEntry{name: "zeros", data: make([]byte, maxOtherBytes+100000)}
	defects["bomb"] = struct {
		data []byte
		want string
	}{compressed(tarOf(t, bomb)), "much larger than the data set"}
	for name, test := range defects {
		t.Run(name, func(t *testing.T) {
			_, err := tinyCIFAR().load(fstest.MapFS{"tiny.tar.gz": {Data: test.data}})
			require.ErrorContains(t, err, test.want)
			var format *FormatError
			require.ErrorAs(t, err, &format)
		})
	}
}

func TestCIFARRefusesFolders(t *testing.T) {
	c := tinyCIFAR()
	for name, test := range map[string]struct {
		change func(fstest.MapFS)
		want   string
	}{
		"truncated":       {func(f fstest.MapFS) { f["two.bin"].Data = f["two.bin"].Data[:3000] }, "two.bin: 3000 bytes; expected 3073"},
		"too long":        {func(f fstest.MapFS) { f["two.bin"].Data = append(f["two.bin"].Data, 0) }, "two.bin: 3074 bytes; expected 3073"},
		"changed":         {func(f fstest.MapFS) { f["two.bin"].Data = changed(f["two.bin"].Data, 77) }, "two.bin: MD5 of the uncompressed content is "},
		"folder for file": {func(f fstest.MapFS) { f["one.bin"].Mode = fs.ModeDir }, "one.bin: not a regular file"},
		"pipe for file":   {func(f fstest.MapFS) { f["one.bin"].Mode = fs.ModeNamedPipe }, "one.bin: not a regular file"},
		"short in gzip": {func(f fstest.MapFS) {
			f["two.bin.gz"] = &fstest.MapFile{Data: compressed(f["two.bin"].Data[:3000])}
			delete(f, "two.bin")
		}, "two.bin.gz: truncated"},
		"bytes behind in gzip": {func(f fstest.MapFS) {
			f["two.bin.gz"] = &fstest.MapFile{Data: compressed(append(f["two.bin"].Data, make([]byte, 50<<20)...))}
			delete(f, "two.bin")
		}, "two.bin.gz: bytes after the first 3073"},
		"second missing": {func(f fstest.MapFS) { delete(f, "two.bin") }, "datasets: no two.bin or two.bin.gz in the folder: file does not exist"},
		"first missing":  {func(f fstest.MapFS) { delete(f, "one.bin") }, "no one.bin, folder tiny-bin or tiny.tar.gz in the folder: file does not exist"},
	} {
		t.Run(name, func(t *testing.T) {
			folder := maps.Clone(tinyCIFARFolder(c, ""))
			test.change(folder)
			_, err := c.load(folder)
			require.ErrorContains(t, err, test.want)
		})
	}
}

// FuzzCIFARArchive demands that what is accepted is the data set and all else is a FormatError.
func FuzzCIFARArchive(f *testing.F) {
	c := tinyCIFAR()
	for i := range c.files.Members { // checksums would refuse every change
		c.files.Members[i].MD5 = ""
	}
	f.Add(tarOf(f, tinyEntries(c)...))
	f.Add(compressed(tarOf(f, tinyEntries(c)...)))
	for name, defect := range cifarDefects(f) {
		if name != "many entries" {
			f.Add(defect.data)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		split, err := c.load(fstest.MapFS{"tiny.tar.gz": {Data: data}})
		if err != nil {
			var format *FormatError
			require.ErrorAs(t, err, &format)
			return
		}
		require.NoError(t, split.Train.Validate())
		require.NoError(t, split.Test.Validate())
		require.Equal(t, 3, split.Train.Len())
	})
}

// FuzzCIFARFile demands the same of a plain or compressed member.
func FuzzCIFARFile(f *testing.F) {
	c := newTinyCIFAR([]int{5, 10})
	c.files.Members[1].MD5 = ""
	f.Add(tinyMember(c, 1))
	f.Add(compressed(tinyMember(c, 1)))
	f.Add(compressed(tinyMember(c, 1))[:50])
	f.Add([]byte{4, 10})
	f.Fuzz(func(t *testing.T, data []byte) {
		folder := tinyCIFARFolder(c, "")
		delete(folder, "two.bin")
		folder["two.bin.gz"] = &fstest.MapFile{Data: data} // its size is not looked at
		split, err := c.load(folder)
		if err != nil {
			var format *FormatError
			require.ErrorAs(t, err, &format)
			return
		}
		require.NoError(t, split.Train.Validate())
		if len(data) == int(c.record()) {
			require.Equal(t, data[2:], split.Train.Image(2))
		}
	})
}

// realData returns the folder below which a data set that is no part of the repository lies, or skips the test: in
// $GOQAT_DATA, or shared/data beside any folder above. Where data are required, a missing set fails the test.
func realData(t *testing.T, name string) string {
	t.Helper()
	places := []string{}
	if data := os.Getenv(dataVariable); data != "" {
		places = append(places, data, filepath.Join(data, name))
	}
	above, err := os.Getwd()
	require.NoError(t, err)
	for ; above != filepath.Dir(above); above = filepath.Dir(above) {
		places = append(places, filepath.Join(above, "shared", "data"), filepath.Join(above, "shared", "data", name))
	}
	files, err := filesOf(name)
	require.NoError(t, err)
	for _, place := range append(places, files.Installed...) {
		if files.in(place) == nil {
			return place
		}
	}
	if os.Getenv("GOQAT_REQUIRE_DATA") == "1" {
		t.Fatalf("%s is not in %v, and GOQAT_REQUIRE_DATA demands it", name, places)
	}
	t.Skipf("SKIPPED WITHOUT DATA: %s is not in %v; set GOQAT_DATA", name, places)
	return ""
}

func TestCIFAR10(t *testing.T) {
	split, err := LoadCIFAR10(realData(t, "cifar10"))
	require.NoError(t, err)
	require.NoError(t, split.Train.Validate())
	require.NoError(t, split.Test.Validate())
	require.Equal(t, []uint16{6, 9, 9, 4, 1, 1, 2, 7}, split.Train.Labels[:8])
	require.Equal(t, []uint16{3, 8, 8, 0, 6, 6, 1, 6}, split.Test.Labels[:8])
	for _, part := range []struct {
		d    *Dataset
		each int
	}{{split.Train, 5000}, {split.Test, 1000}} {
		counts := make([]int, 10)
		for _, label := range part.d.Labels {
			counts[label]++
		}
		require.Equal(t, slices.Repeat([]int{part.each}, 10), counts)
	}
	for c := range cifarChannels {
		sum, n := 0, 0
		for i := range split.Train.Len() {
			for _, pixel := range split.Train.Image(i)[c*1024 : (c+1)*1024] {
				sum += int(pixel)
				n++
			}
		}
		require.InDelta(t, split.Train.Mean[c], float64(sum)/255/float64(n), 1e-4, "channel %d", c)
	}
}

func TestCIFARTables(t *testing.T) {
	for c, want := range map[*cifar]struct{ train, test, classes int }{&cifar10: {50000, 10000, 10}, &cifar100: {50000, 10000, 100}} {
		last := len(c.files.Members) - 1
		require.Equal(t, want.train, c.images(c.files.Members[:last]))
		require.Equal(t, want.test, c.images(c.files.Members[last:]))
		require.Len(t, c.classes, want.classes)
		require.Equal(t, want.classes, c.labels[len(c.labels)-1])
		require.True(t, slices.IsSorted(c.classes))
		for _, m := range c.files.Members {
			require.Zero(t, m.Size%c.record())
		}
	}
}

func TestLoadCIFAR100RefusesOtherFiles(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, "train.bin", []byte("short"))
	_, err := LoadCIFAR100(dir)
	require.EqualError(t, err, "cifar100: folder "+dir+": datasets: train.bin: 5 bytes; expected 153700000")
}
