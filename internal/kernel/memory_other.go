//go:build !linux

package kernel

// askForHugePages does nothing: other systems give them by themselves, or not at all.
func askForHugePages([]float32) {}
