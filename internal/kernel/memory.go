package kernel

// Allocate returns n zeros. Large ones ask the system for huge pages: a step goes through much more memory than the processor
// remembers the places of small pages for, and on a virtual machine to look one up takes longer than to fetch what lies there.
func Allocate(n int) []float32 {
	v := make([]float32, n)
	askForHugePages(v)
	return v
}
