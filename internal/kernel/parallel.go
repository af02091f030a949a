package kernel

import (
	"runtime"
	"sync"
	"sync/atomic"
)

// job is one call of Parallel: tasks are handed out by a counter, so that threads of unequal speed finish together.
type job struct {
	do     func(task int)
	tasks  int64
	next   atomic.Int64
	done   sync.WaitGroup
	failed atomic.Pointer[failure]
}

type failure struct{ value any }

var pool struct {
	sync.Mutex
	jobs    chan *job
	workers int
}

// Parallel calls do(0) … do(tasks-1) on up to GOMAXPROCS threads and returns when all are done. Which thread does
// which task is left open, so tasks must not share what they write. A panic in a task is raised again in the caller.
func Parallel(tasks int, do func(task int)) {
	threads := min(runtime.GOMAXPROCS(0), tasks)
	if threads <= 1 {
		for i := range tasks {
			do(i)
		}
		return
	}
	j := &job{do: do, tasks: int64(tasks)}
	j.done.Add(threads - 1)
	jobs := workers(threads - 1)
	for range threads - 1 {
		jobs <- j
	}
	j.work()
	j.done.Wait()
	if f := j.failed.Load(); f != nil {
		panic(f.value)
	}
}

func (j *job) work() {
	defer func() {
		if v := recover(); v != nil {
			j.failed.Store(&failure{v})
			j.next.Store(j.tasks)
		}
	}()
	for i := j.next.Add(1) - 1; i < j.tasks; i = j.next.Add(1) - 1 {
		j.do(int(i))
	}
}

// workers makes sure that at least n workers wait for jobs; they live as long as the program.
func workers(n int) chan<- *job {
	pool.Lock()
	defer pool.Unlock()
	if pool.jobs == nil {
		pool.jobs = make(chan *job, 1024)
	}
	for ; pool.workers < n; pool.workers++ {
		go func() {
			for j := range pool.jobs {
				j.work()
				j.done.Done()
			}
		}()
	}
	return pool.jobs
}
