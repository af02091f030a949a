//go:build !purego

package kernel

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The path is judged by what the operating system says of the machine, so that a silent fallback can't pass.
func TestSupportedPathMatchesTheMachine(t *testing.T) {
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		t.Skip("no /proc/cpuinfo on this system")
	}
	_, after, found := strings.Cut(string(info), "\nflags")
	require.True(t, found)
	line, _, _ := strings.Cut(after, "\n")
	flags := strings.Fields(line)
	has := func(names ...string) bool {
		return !slices.ContainsFunc(names, func(name string) bool { return !slices.Contains(flags, name) })
	}
	want := portable
	switch {
	case has("avx2", "fma", "avx512f", "avx512dq", "avx512vl"):
		want = avx512
	case has("avx2", "fma"):
		want = avx2
	}
	require.Equal(t, pathNames[want], pathNames[supported()])
}
