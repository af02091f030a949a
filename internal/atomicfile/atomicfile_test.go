package atomicfile

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestWriteCreatesAndReplaces(t *testing.T) {
	folder := t.TempDir()
	path := filepath.Join(folder, "checkpoint")
	for _, content := range []string{"first, longer", "second", ""} {
		require.NoError(t, Write(path, []byte(content), 0o644))
		got, err := os.ReadFile(path)
		require.NoError(t, err)
		require.Equal(t, content, string(got))
	}
	requireOnly(t, folder, "checkpoint")
}

func TestWriteSetsPermissions(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("permissions are not kept on Windows")
	}
	path := filepath.Join(t.TempDir(), "file")
	for _, perm := range []os.FileMode{0o600, 0o666} {
		require.NoError(t, Write(path, nil, perm))
		info, err := os.Stat(path)
		require.NoError(t, err)
		require.Equal(t, perm, info.Mode().Perm())
	}
}

func TestWriteWithoutFolder(t *testing.T) {
	t.Chdir(t.TempDir())
	require.NoError(t, Write("plain", []byte("x"), 0o644))
	requireOnly(t, ".", "plain")
}

func TestWriteFailureLeavesNothing(t *testing.T) {
	folder := t.TempDir()
	target := filepath.Join(folder, "taken")
	require.NoError(t, os.MkdirAll(filepath.Join(target, "inside"), 0o755))
	err := Write(target, []byte("x"), 0o644) // a file can't replace a folder that holds something
	require.ErrorContains(t, err, "atomicfile: write "+target)
	requireOnly(t, folder, "taken")
}

func TestWriteToMissingFolder(t *testing.T) {
	err := Write(filepath.Join(t.TempDir(), "missing", "file"), nil, 0o644)
	require.ErrorIs(t, err, os.ErrNotExist)
}

func TestFillReportsFailedWrite(t *testing.T) {
	f, err := os.CreateTemp(t.TempDir(), "")
	require.NoError(t, err)
	require.NoError(t, f.Close())
	require.ErrorIs(t, fill(f, []byte("x"), 0o644), os.ErrClosed)
}

func requireOnly(t *testing.T, folder string, names ...string) {
	t.Helper()
	entries, err := os.ReadDir(folder)
	require.NoError(t, err)
	got := []string{}
	for _, entry := range entries {
		got = append(got, entry.Name())
	}
	require.Equal(t, names, got)
}
