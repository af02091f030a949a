package main

import (
	"bytes"
	"crypto/md5"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/goqat/goqat/datasets"
)

// dataCommand runs `goqat data` in a home of its own.
func dataCommand(args ...string) (status int, stdout, stderr string) {
	var out, errors bytes.Buffer
	status = run(append([]string{"data"}, args...), &out, &errors)
	return status, out.String(), errors.String()
}

func ownHome(t *testing.T) {
	t.Helper()
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("XDG_CACHE_HOME", filepath.Join(home, ".cache"))
	t.Setenv("GOQAT_DATA", "")
}

// registerServed makes a data set of one member known that a server on this machine has.
func registerServed(t *testing.T, name string, content []byte) {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content))
	}))
	t.Cleanup(server.Close)
	sum := md5.Sum([]byte("the right content"))
	datasets.Register(datasets.Spec{
		Name: name, Doc: "of a test", Source: "a test", License: "none",
		Load: func(string) (datasets.Split, error) { return datasets.Split{}, nil },
		Files: &datasets.Files{
			Members:   []datasets.Member{{Name: "member", Size: 17, MD5: hex.EncodeToString(sum[:])}},
			Downloads: []datasets.Download{{URL: server.URL + "/member", Size: 17}},
		},
	})
}

func TestDataFetchAndVerify(t *testing.T) {
	ownHome(t)
	registerServed(t, "data-test-right", []byte("the right content"))
	status, stdout, stderr := dataCommand("fetch", "data-test-right")
	require.Zero(t, status, stderr)
	require.Empty(t, stderr)
	folder, found := strings.CutPrefix(strings.TrimSpace(stdout), "data-test-right: ")
	require.True(t, found, stdout)
	require.FileExists(t, filepath.Join(folder, "member"))

	status, stdout, _ = dataCommand("verify", "data-test-right")
	require.Zero(t, status)
	require.Contains(t, stdout, "data-test-right in "+folder+"\nmember  17 bytes  MD5 ")

	require.NoError(t, os.WriteFile(filepath.Join(folder, "member"), []byte("the wrong content"), 0o600))
	status, stdout, stderr = dataCommand("verify", "data-test-right", "--data-dir", folder)
	require.Equal(t, exitFailure, status)
	require.Contains(t, stdout, "member  17 bytes  WRONG: MD5 of the uncompressed content is ")
	require.Equal(t, 1, strings.Count(stderr, "\n"))

	status, stdout, _ = dataCommand("verify", "data-test-right", "--json")
	require.Equal(t, exitFailure, status)
	var report datasets.Report
	require.NoError(t, json.Unmarshal([]byte(stdout), &report))
	require.Equal(t, folder, report.Dir)
	require.Contains(t, report.Files[0].Problem, "expected ")
}

func TestDataRefuses(t *testing.T) {
	ownHome(t)
	registerServed(t, "data-test-wrong", []byte("the wrong content"))
	for _, test := range []struct {
		args   string
		status int
		want   string
	}{
		{"fetch data-test-wrong", exitFailure, "MD5 of the uncompressed content is "},
		{"fetch mnist", exitFailure, "mnist has no published files to look for: handwritten digits"},
		{"fetch cifar1", exitUsage, `unknown dataset "cifar1": did you mean "cifar10"?`},
		{"verify cifar100", exitFailure, "`goqat data fetch cifar100` downloads it"},
		{"fetch", exitUsage, "takes the name of a data set, got 0"},
		{"verify a b", exitUsage, "takes the name of a data set, got 2"},
		{"get cifar10", exitUsage, `unknown command "get" for goqat data: want fetch or verify`},
	} {
		status, stdout, stderr := dataCommand(strings.Fields(test.args)...)
		require.Equal(t, test.status, status, test.args)
		require.Contains(t, stderr, test.want)
		require.Equal(t, 1, strings.Count(stderr, "\n"), stderr)
		require.Empty(t, stdout)
	}
	status, stdout, _ := dataCommand()
	require.Zero(t, status)
	require.Contains(t, stdout, "fetch")
}

func TestDataCompletion(t *testing.T) {
	var out bytes.Buffer
	require.Zero(t, run([]string{"__complete", "data", "fetch", ""}, &out, &bytes.Buffer{}))
	require.Contains(t, out.String(), "cifar10\n")
	require.NotContains(t, out.String(), "folder\n")
}
