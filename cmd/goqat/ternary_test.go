package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// A method is one file: quantops/testdata/ternary.go, laid over package quantops and nothing else, is listed, conforms,
// trains, is inspected and exported.
func TestMethodIsOneFile(t *testing.T) {
	folder := t.TempDir()
	overlay := filepath.Join(folder, "overlay.json")
	text, err := json.Marshal(map[string]any{"Replace": map[string]string{
		absolute(t, "../../quantops/ternary.go"): absolute(t, "../../quantops/testdata/ternary.go"),
	}})
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(overlay, text, 0o644))

	run := func(name string, arguments ...string) string {
		t.Helper()
		command := exec.Command(name, arguments...)
		command.Dir = folder
		out, err := command.CombinedOutput()
		require.NoError(t, err, "%s %v: %s", name, arguments, out)
		return string(out)
	}
	run("go", "-C", absolute(t, "../.."), "test", "-overlay", overlay, "-run", "TestConformance.*/ternary", "./quantops")
	with := filepath.Join(folder, "goqat")
	run("go", "-C", absolute(t, "../.."), "build", "-overlay", overlay, "-o", with, "./cmd/goqat")

	require.Contains(t, run(with, "list", "methods"), "ternary")
	run(with, "train", "--weights", "ternary:2", "--acts", "lsq:4", "--train-images", "10000", "--float-epochs", "1", "--epochs", "1", "--out", "run")
	var result struct {
		Accuracy  struct{ Integer float64 }
		Agreement float64
	}
	data, err := os.ReadFile(filepath.Join(folder, "run", "result.json"))
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(data, &result))
	require.Greater(t, result.Accuracy.Integer, 0.9)
	require.Equal(t, 1.0, result.Agreement)
	require.Contains(t, run(with, "inspect", "run"), "ternary:2")
	run(with, "export", "run", "--out", "model.goq")
}

func absolute(t *testing.T, path string) string {
	t.Helper()
	path, err := filepath.Abs(path)
	require.NoError(t, err)
	return path
}
