package kernel

import (
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestParallelDoesEveryTaskOnce(t *testing.T) {
	for _, threads := range []int{1, 2, 5} {
		withThreads(threads, func() {
			for _, tasks := range []int{0, 1, 2, 3, 1000} {
				done := make([]int32, tasks)
				Parallel(tasks, func(task int) { atomic.AddInt32(&done[task], 1) })
				for task, n := range done {
					require.Equal(t, int32(1), n, "task %d of %d on %d threads", task, tasks, threads)
				}
			}
		})
	}
}

// Whoever helps, every task of a share is done once before the share returns.
func TestShareDoesEveryTaskOnce(t *testing.T) {
	for _, threads := range []int{1, 2, 5} {
		withThreads(threads, func() {
			for range 200 {
				var done [6][7]atomic.Int32
				var right atomic.Int32
				Parallel(len(done), func(task int) {
					Share(len(done[task]), func(i int) { done[task][i].Add(1) })
					for i := range done[task] {
						right.Add(min(done[task][i].Load(), 1))
					}
				})
				require.Equal(t, int32(6*7), right.Load())
				for i := range 6 * 7 {
					require.Equal(t, int32(1), done[i/7][i%7].Load())
				}
			}
		})
	}
}

// A thread whose tasks are done helps one that has shares.
func TestShareFindsHelp(t *testing.T) {
	if runtime.NumCPU() < 2 {
		t.Skip("one processor: nobody waits by looking")
	}
	together := false
	withThreads(2, func() {
		for attempt := 0; attempt < 100 && !together; attempt++ {
			beside(func() { together = meet() })
		}
	})
	require.True(t, together, "two threads inside a share")
}

// meet says whether two tasks of a share are under way at a time.
func meet() bool {
	var inside atomic.Int32
	Share(2, func(int) {
		inside.Add(1)
		for end := time.Now().Add(20 * time.Millisecond); inside.Load() < 2 && time.Now().Before(end); {
			runtime.Gosched()
		}
		inside.Store(2 * (inside.Load() / 2)) // one that has been alone leaves no trace
	})
	return inside.Load() == 2
}

// Both tasks are inside before either starts an inner call, so that no worker is free to help.
func TestParallelNests(t *testing.T) {
	withThreads(2, func() {
		var inside sync.WaitGroup
		inside.Add(2)
		var done atomic.Int32
		Parallel(2, func(int) {
			inside.Done()
			inside.Wait()
			Parallel(7, func(int) { done.Add(1) })
		})
		require.Equal(t, int32(14), done.Load())
	})
}

func TestParallelPassesPanicsOn(t *testing.T) {
	for _, threads := range []int{1, 2, 5} {
		withThreads(threads, func() {
			for _, bad := range []int{0, 57, 99} {
				require.PanicsWithValue(t, "task", func() {
					Parallel(100, func(task int) {
						if task == bad {
							panic("task")
						}
					})
				})
			}
			require.PanicsWithValue(t, "share", func() {
				Parallel(4, func(int) {
					Share(3, func(i int) {
						if i == 1 {
							panic("share")
						}
					})
				})
			})
			var done atomic.Int32
			Parallel(10, func(int) { done.Add(1) })
			require.Equal(t, int32(10), done.Load(), "the workers live on")
		})
	}
}
