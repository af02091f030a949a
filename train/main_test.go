package train

import (
	"fmt"
	"os"
	"testing"
)

// shared is a folder that lives as long as the tests do.
var shared string

func TestMain(m *testing.M) {
	if folder := os.Getenv(trainInto); folder != "" {
		trainAndHang(folder)
	}
	os.Exit(withShared(m.Run))
}

func withShared(run func() int) int {
	folder, err := os.MkdirTemp("", "goqat-train-*")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(folder)
	shared = folder
	return run()
}
