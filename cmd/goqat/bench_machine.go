package main

import (
	"bytes"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"sync"
	"time"

	"github.com/goqat/goqat/internal/kernel"
)

// peakRate returns the floating-point operations a second that threads reach together, with nothing but independent
// multiply-adds: the best of some rounds.
func peakRate(threads int) float64 {
	const (
		rounds = 1 << 19 // milliseconds with SIMD, long against the start of a thread
		least  = 2
		enough = 200 * time.Millisecond
	)
	best, begin := 0.0, time.Now()
	for i := 0; i < least || time.Since(begin) < enough; i++ {
		best = max(best, probe(threads, rounds))
	}
	return best
}

// probe returns the operations a second of one round on each thread at once.
func probe(threads, rounds int) float64 {
	operations := make([]float64, threads)
	var done sync.WaitGroup
	start := time.Now()
	for i := range operations {
		done.Go(func() { operations[i] = kernel.Probe(rounds) })
	}
	done.Wait()
	seconds, total := time.Since(start).Seconds(), 0.0
	for _, n := range operations {
		total += n
	}
	return total / seconds
}

// resetResident gives unused memory back and makes [peakResident] start anew where the system can; elsewhere the
// peak is that of the program so far.
func resetResident() {
	runtime.GC() // runs finalizers, whose memory the next collection can free
	debug.FreeOSMemory()
	if f, err := os.OpenFile("/proc/self/clear_refs", os.O_WRONLY, 0); err == nil {
		f.WriteString("5") // see proc(5)
		f.Close()
	}
}

// peakResident returns the most bytes of memory that were resident; 0 where the system does not tell.
func peakResident() uint64 {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	return residentBytes(status)
}

// residentBytes finds the line "VmHWM: n kB"; 0 without it.
func residentBytes(status []byte) uint64 {
	for line := range bytes.Lines(status) {
		fields := bytes.Fields(line)
		if len(fields) != 3 || string(fields[0]) != "VmHWM:" || string(fields[2]) != "kB" {
			continue
		}
		if n, err := strconv.ParseUint(string(fields[1]), 10, 50); err == nil {
			return 1024 * n
		}
	}
	return 0
}
