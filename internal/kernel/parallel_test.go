package kernel

import (
	"sync"
	"sync/atomic"
	"testing"

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
			var done atomic.Int32
			Parallel(10, func(int) { done.Add(1) })
			require.Equal(t, int32(10), done.Load(), "the workers live on")
		})
	}
}
