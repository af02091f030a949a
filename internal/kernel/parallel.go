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
	done   sync.WaitGroup // of tasks, so that a caller never waits for a worker that has not come yet
	left   atomic.Int64   // as many, for those who look instead of waiting
	failed atomic.Pointer[failure]
}

// finish counts tasks that are done.
func (j *job) finish(tasks int64) {
	j.left.Add(-tasks)
	j.done.Add(-int(tasks))
}

type failure struct{ value any }

var pool struct {
	sync.Mutex
	jobs    chan *job
	workers int
}

// Parallel calls do(0) … do(tasks-1) on up to GOMAXPROCS threads and returns when all are done. Which thread does
// which task is left open, so tasks must not share what they write. Tasks may call Parallel. A panic in a task is raised
// again in the caller; tasks not started by then are left out.
func Parallel(tasks int, do func(task int)) {
	threads := min(runtime.GOMAXPROCS(0), tasks)
	if threads <= 1 {
		for i := range tasks {
			do(i)
		}
		return
	}
	j := &job{do: do, tasks: int64(tasks)}
	j.done.Add(tasks)
	j.left.Store(j.tasks)
	invite(j, threads-1)
	j.work()
	spin(func() bool { return j.left.Load() == 0 })
	j.done.Wait()
	if f := j.failed.Load(); f != nil {
		panic(f.value)
	}
}

// work does tasks until none is left.
func (j *job) work() {
	for i := j.next.Add(1) - 1; i < j.tasks; i = j.next.Add(1) - 1 {
		j.task(int(i))
	}
}

func (j *job) task(i int) {
	defer j.finish(1)
	defer func() {
		if v := recover(); v != nil {
			j.failed.Store(&failure{v})
			started := min(j.next.Swap(j.tasks), j.tasks)
			j.finish(j.tasks - started)
		}
	}()
	j.do(i)
}

// spins is how often a thread looks before it sleeps, about 100 µs: the steps of a network follow one another so quickly that
// to wake a thread up takes longer.
const spins = 1 << 17

// spin waits a short time for something to become true, unless threads share processors.
func spin(done func() bool) {
	if runtime.GOMAXPROCS(0) > runtime.NumCPU() {
		return
	}
	for range spins {
		if done() {
			return
		}
	}
}

// invite asks up to n workers to help with a job. They live as long as the program; one that comes late finds nothing
// to do.
func invite(j *job, n int) {
	pool.Lock()
	defer pool.Unlock()
	if pool.jobs == nil {
		pool.jobs = make(chan *job, 1024)
	}
	for ; pool.workers < n; pool.workers++ {
		go func() {
			for {
				spin(func() bool { return len(pool.jobs) > 0 })
				(<-pool.jobs).work()
			}
		}()
	}
	for range n {
		select {
		case pool.jobs <- j:
		default: // so many jobs wait for workers that the caller had better do it alone
			return
		}
	}
}
