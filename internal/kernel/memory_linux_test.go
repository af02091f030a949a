package kernel

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
)

// The system notes of large memory that huge pages are wanted for it.
func TestAllocateAsksForHugePages(t *testing.T) {
	if _, err := os.Stat("/sys/kernel/mm/transparent_hugepage"); err != nil {
		t.Skip("this kernel has no huge pages to ask for:", err)
	}
	v := Allocate(8 << 20)
	flags := mappingFlags(t, uintptr(unsafe.Pointer(&v[0])))
	require.Contains(t, flags, "hg", "advised")
	require.NotContains(t, flags, "nh")
	v[0] = 1 // alive until here
}

// mappingFlags returns the kernel's flags of the mapping that holds an address.
func mappingFlags(t *testing.T, address uintptr) []string {
	maps, err := os.ReadFile("/proc/self/smaps")
	require.NoError(t, err)
	inside := false
	for line := range strings.Lines(string(maps)) {
		var from, to uintptr
		if n, _ := fmt.Sscanf(line, "%x-%x ", &from, &to); n == 2 {
			inside = from <= address && address < to
		}
		if flags, ok := strings.CutPrefix(line, "VmFlags:"); ok && inside {
			return strings.Fields(flags)
		}
	}
	require.Fail(t, "no mapping holds the memory")
	return nil
}
