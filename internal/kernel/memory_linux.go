package kernel

import (
	"syscall"
	"unsafe"
)

// hugePage is the size of a huge page on most machines; on others the advice is for a part or several.
const hugePage = 2 << 20

// askForHugePages asks for those that v lies in, before they are touched. It is advice: where the system does not take it,
// nothing changes. What else lies in the pages at v's ends does not mind, nor what comes to lie there later: it is advice for the
// addresses, which stay within what Go has reserved.
func askForHugePages(v []float32) {
	if 4*len(v) < hugePage/2 {
		return
	}
	from := uintptr(unsafe.Pointer(&v[0]))
	to := from + uintptr(4*len(v)) + hugePage - 1
	from, to = from&^(hugePage-1), to&^(hugePage-1)
	_, _, _ = syscall.Syscall(syscall.SYS_MADVISE, from, to-from, syscall.MADV_HUGEPAGE) // advice: an error is an answer, too
}
