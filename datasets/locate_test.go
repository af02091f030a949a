package datasets

import (
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

// alone makes $GOQAT_DATA unset and the cache folder a new one, which it returns for the data set.
func alone(t *testing.T, name string) string {
	t.Helper()
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("XDG_CACHE_HOME", filepath.Join(home, ".cache"))
	t.Setenv("LocalAppData", home)
	t.Setenv(dataVariable, "")
	cache, err := cacheFolder(name)
	require.NoError(t, err)
	return cache
}

var registered atomic.Int64

// register makes files known as a data set of a new name.
func register(t *testing.T, files Files) string {
	t.Helper()
	name := "registered-" + string(rune('a'+registered.Add(1)))
	Register(Spec{Name: name, Doc: "d", Source: "s", License: "l", Files: &files, Load: func(string) (Split, error) { return Split{}, nil }})
	return name
}

func TestLocate(t *testing.T) {
	c := tinyCIFAR()
	installed := t.TempDir()
	c.files.Installed = []string{installed}
	name := register(t, c.files)
	cache := alone(t, name)
	data := t.TempDir()

	_, err := Locate(name, "")
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.EqualError(t, err, "datasets: "+name+" is not in "+cache+", "+installed+": name its folder or set $GOQAT_DATA")

	// From the last place to the first, each of which hides the later ones.
	for _, place := range []struct{ dir, file string }{
		{installed, "one.bin.gz"},
		{cache, "tiny.tar.gz"},
		{data, "tiny-bin/one.bin"},
		{filepath.Join(data, name), "one.bin"},
	} {
		t.Setenv(dataVariable, data)
		put(t, place.dir, place.file, nil)
		got, err := Locate(name, "")
		require.NoError(t, err)
		require.Equal(t, place.dir, got)
	}

	got, err := Locate(name, installed)
	require.NoError(t, err)
	require.Equal(t, installed, got)
	empty := t.TempDir()
	_, err = Locate(name, empty)
	require.EqualError(t, err, name+": folder "+empty+": datasets: no one.bin, folder tiny-bin or tiny.tar.gz in the folder: file does not exist")
	_, err = Locate(name, filepath.Join(empty, "missing"))
	require.ErrorIs(t, err, fs.ErrNotExist)
	put(t, empty, "file", nil)
	_, err = Locate(name, filepath.Join(empty, "file"))
	require.ErrorContains(t, err, "not a folder")
}

func TestLocateNamesEveryPlace(t *testing.T) {
	cache := alone(t, "cifar10")
	data := t.TempDir()
	t.Setenv(dataVariable, data)
	_, err := LoadCIFAR10("")
	var missing *NotFoundError
	require.ErrorAs(t, err, &missing)
	require.Equal(t, []string{filepath.Join(data, "cifar10"), data, cache}, missing.Places)
	require.ErrorContains(t, err, "`goqat data fetch cifar10` downloads it; or name its folder or set $GOQAT_DATA")
}

func TestLocateWithoutFiles(t *testing.T) {
	for _, name := range []string{"folder"} {
		_, err := Locate(name, "")
		require.ErrorContains(t, err, "datasets: folder has no published files to look for: your own pictures")
	}
	_, err := Locate("cifar", "")
	require.ErrorContains(t, err, `did you mean "cifar10"?`)
}

func TestVerify(t *testing.T) {
	c := tinyCIFAR()
	c.files.Members[1].MD5 = ""
	sum := md5Of(tinyMember(c, 1))
	name := register(t, c.files)
	for form, fill := range map[string]func(dir string){
		"folder": func(dir string) {
			for i, m := range c.files.Members {
				put(t, dir, "tiny-bin/"+m.Name, tinyMember(c, i))
			}
		},
		"archive": func(dir string) { put(t, dir, "tiny.tar.gz", compressed(tarOf(t, tinyEntries(c)...))) },
	} {
		dir := t.TempDir()
		fill(dir)
		report, err := Verify(name, dir)
		require.NoError(t, err, form)
		require.Equal(t, name, report.Name)
		require.Equal(t, dir, report.Dir)
		require.Len(t, report.Files, 3)
		require.Contains(t, []string{"tiny-bin/two.bin", "tiny.tar.gz/two.bin"}, report.Files[1].File)
		require.Equal(t, FileReport{File: report.Files[1].File, Bytes: 3073, Check: "size", Sum: sum}, report.Files[1])
		for _, f := range report.Files {
			require.Empty(t, f.Problem)
		}
	}
}

// All members are looked at, also behind a wrong one.
func TestVerifyReportsProblems(t *testing.T) {
	c := tinyCIFAR()
	name := register(t, c.files)
	dir := t.TempDir()
	put(t, dir, "one.bin", changed(tinyMember(c, 0), 5))
	put(t, dir, "two.bin.gz", compressed(tinyMember(c, 1))[:20])
	report, err := Verify(name, dir)
	require.ErrorContains(t, err, name+": folder "+dir+": datasets: one.bin: MD5 of the uncompressed content is ")
	var format *FormatError
	require.ErrorAs(t, err, &format)
	require.Len(t, report.Files, 3)
	require.Contains(t, report.Files[0].Problem, "MD5 of the uncompressed content is ")
	require.NotEmpty(t, report.Files[0].Sum)
	require.Equal(t, FileReport{File: "two.bin.gz", Bytes: 3073, Check: "MD5", Problem: "truncated"}, report.Files[1])
	require.Contains(t, report.Files[2].Problem, "no test.bin or test.bin.gz in the folder")

	entries := tinyEntries(c)
	entries[2].data = entries[2].data[1:]
	require.NoError(t, os.Remove(filepath.Join(dir, "one.bin")))
	put(t, dir, "tiny.tar.gz", compressed(tarOf(t, entries...)))
	report, err = Verify(name, dir)
	require.ErrorContains(t, err, "tiny.tar.gz/test.bin: 3072 bytes; expected 3073")
	require.Len(t, report.Files, 3)
	require.Empty(t, report.Files[2].Problem)

	put(t, dir, "tiny.tar.gz", []byte("text"))
	report, err = Verify(name, dir)
	require.ErrorContains(t, err, "tiny.tar.gz: truncated")
	require.Empty(t, report.Files)
}

func TestVerifyRealData(t *testing.T) {
	for _, name := range []string{"cifar10", "fashion-mnist"} {
		t.Run(name, func(t *testing.T) {
			report, err := Verify(name, realData(t, name))
			require.NoError(t, err)
			require.NotEmpty(t, report.Files)
		})
	}
}
