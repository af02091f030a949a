// Package checkpoints finds the public checkpoints that tests read. It is support for tests only.
package checkpoints

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// Path returns where the checkpoint file of that name is: in $GOQAT_DATA, its folder ckpt, or shared/ckpt in one of the
// folders above the test's. Where it is in none the test is skipped, or fails if $GOQAT_REQUIRE_DATA is 1.
func Path(t testing.TB, name string) string {
	t.Helper()
	for _, folder := range folders(t) {
		path := filepath.Join(folder, name)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
			return path
		}
	}
	if os.Getenv("GOQAT_REQUIRE_DATA") == "1" {
		t.Fatalf("checkpoint %s is not there, and GOQAT_REQUIRE_DATA=1: put it into $GOQAT_DATA", name)
	}
	t.Skipf("SKIPPED: checkpoint %s is not there: put it into $GOQAT_DATA", name)
	return ""
}

func folders(t testing.TB) []string {
	t.Helper()
	var all []string
	if data := os.Getenv("GOQAT_DATA"); data != "" {
		all = append(all, data, filepath.Join(data, "ckpt"))
	}
	folder, err := os.Getwd()
	require.NoError(t, err)
	for ; filepath.Dir(folder) != folder; folder = filepath.Dir(folder) {
		all = append(all, filepath.Join(folder, "shared", "ckpt"))
	}
	return all
}
