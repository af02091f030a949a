package main

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/goqat/goqat/datasets"
	"github.com/goqat/goqat/datasets/mnist"
)

// beMain is the environment variable that makes the test program goqat itself.
const beMain = "GOQAT_TEST_BE_MAIN"

// shared is a folder that lives as long as the tests do.
var shared string

func TestMain(m *testing.M) {
	if os.Getenv(beMain) != "" {
		main()
		return
	}
	os.Exit(withShared(m.Run))
}

func withShared(run func() int) int {
	folder, err := os.MkdirTemp("", "goqat-*")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(folder)
	shared = folder
	return run()
}

// goqat runs a command line.
func goqat(args ...string) (status int, stdout, stderr string) {
	var out, errors bytes.Buffer
	status = run(args, &out, &errors)
	return status, out.String(), errors.String()
}

// succeed runs a command line that has to succeed and returns what it prints.
func succeed(t *testing.T, args ...string) (stdout, stderr string) {
	t.Helper()
	status, stdout, stderr := goqat(args...)
	require.Zero(t, status, "goqat %s: %s", strings.Join(args, " "), stderr)
	return stdout, stderr
}

var wholeMNIST = sync.OnceValues(func() (datasets.Split, error) { return mnist.Load("") })

// idxImages is a file of images in MNIST's format.
func idxImages(n, height, width int, pixels []uint8) []byte {
	var header [16]byte
	for i, v := range []int{0x803, n, height, width} {
		binary.BigEndian.PutUint32(header[4*i:], uint32(v))
	}
	return append(header[:], pixels...)
}

// idxLabels is a file of labels in MNIST's format.
func idxLabels(labels []uint16) []byte {
	data := binary.BigEndian.AppendUint32(nil, 0x801)
	data = binary.BigEndian.AppendUint32(data, uint32(len(labels)))
	for _, label := range labels {
		data = append(data, uint8(label))
	}
	return data
}

// Sizes of the data set that tests train on.
const (
	trainingImages = 320
	testImages     = 100
)

// dataFiles are the four files of a data set of the first images of MNIST, by name.
var dataFiles = sync.OnceValues(func() (map[string][]byte, error) {
	all, err := wholeMNIST()
	if err != nil {
		return nil, err
	}
	training, test := all.Train.Head(trainingImages), all.Test.Head(testImages)
	return map[string][]byte{
		"train-images-idx3-ubyte": idxImages(training.Len(), 28, 28, training.Pixels),
		"train-labels-idx1-ubyte": idxLabels(training.Labels),
		"t10k-images-idx3-ubyte":  idxImages(test.Len(), 28, 28, test.Pixels),
		"t10k-labels-idx1-ubyte":  idxLabels(test.Labels),
	}, nil
})

// dataFolder makes a folder with a data set, some files of which are other ones; nil takes a file away.
func dataFolder(t *testing.T, other map[string][]byte) string {
	t.Helper()
	files, err := dataFiles()
	require.NoError(t, err)
	folder := t.TempDir()
	for name, data := range files {
		if _, replaced := other[name]; !replaced {
			require.NoError(t, os.WriteFile(filepath.Join(folder, name), data, 0o644))
		}
	}
	for name, data := range other {
		if data != nil {
			require.NoError(t, os.WriteFile(filepath.Join(folder, name), data, 0o644))
		}
	}
	return folder
}

func compressed(t *testing.T, data []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	_, err := w.Write(data)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	return out.Bytes()
}

// settings are the flags of the run that tests share, without its folder.
func settings(data string) []string {
	return []string{"train", "--data-dir", data, "--float-epochs", "2", "--epochs", "1", "--float-lr", "0.05", "--lr", "0.01", "--batch", "16",
		"--checkpoint-steps", "5", "--calibration", "64"}
}

// finished is a run that several tests look at, and none changes.
var finished struct {
	sync.Once
	data, run, stdout, stderr string
}

// finishedRun returns the folders of a small data set and of a run trained on it.
func finishedRun(t *testing.T) (data, run string) {
	t.Helper()
	finished.Do(func() {
		data, run := filepath.Join(shared, "data"), filepath.Join(shared, "run")
		require.NoError(t, os.CopyFS(data, os.DirFS(dataFolder(t, nil))))
		finished.stdout, finished.stderr = succeed(t, append(settings(data), "--out", run)...)
		finished.data, finished.run = data, run
	})
	require.NotEmpty(t, finished.run, "the run failed in another test")
	return finished.data, finished.run
}

// copied returns a folder with copies of the finished run's files.
func copied(t *testing.T) string {
	t.Helper()
	_, run := finishedRun(t)
	folder := t.TempDir()
	require.NoError(t, os.CopyFS(folder, os.DirFS(run)))
	return folder
}

// contents returns all files below a folder.
func contents(t *testing.T, folder string) map[string]string {
	t.Helper()
	found := map[string]string{}
	require.NoError(t, filepath.WalkDir(folder, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		found[path] = string(data)
		return err
	}))
	return found
}

// write makes a file in a folder and returns its path.
func write(t *testing.T, folder, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(folder, name)
	require.NoError(t, os.WriteFile(path, data, 0o644))
	return path
}

// read returns a file's content.
func read(t *testing.T, path ...string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(path...))
	require.NoError(t, err)
	return data
}
