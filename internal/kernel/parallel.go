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

func newJob(tasks int, do func(task int)) *job {
	j := &job{do: do, tasks: int64(tasks)}
	j.done.Add(tasks)
	j.left.Store(j.tasks)
	return j
}

// finish counts tasks that are done.
func (j *job) finish(tasks int64) {
	j.left.Add(-tasks)
	j.done.Add(-int(tasks))
}

// wait returns when all tasks are done, and raises the panic of one.
func (j *job) wait() {
	j.done.Wait()
	if f := j.failed.Load(); f != nil {
		panic(f.value)
	}
}

type failure struct{ value any }

// pool holds the workers, which live as long as the program. A job stands in a queue once for each thread that is invited
// to it; one that comes late finds nothing to do.
var pool = struct {
	sync.Mutex
	workers int
	jobs    chan *job    // of Parallel, for workers
	shares  chan *job    // of Share, for whoever waits
	waiting atomic.Int32 // threads that would take a share
}{jobs: make(chan *job, 1024), shares: make(chan *job, 1024)}

// Parallel calls do(0) … do(tasks-1) on up to GOMAXPROCS threads and returns when all are done. Which thread does
// which task is left open, so tasks must not share what they write. Tasks may call Parallel. While the caller waits it does
// shares of other tasks (see [Share]), so it must hold no lock that these want. A panic in a task is raised again in the
// caller; tasks not started by then are left out.
func Parallel(tasks int, do func(task int)) {
	threads := min(runtime.GOMAXPROCS(0), tasks)
	if threads <= 1 {
		for i := range tasks {
			do(i)
		}
		return
	}
	j := newJob(tasks, do)
	hire(threads - 1)
	invite(pool.jobs, j, threads-1)
	j.work()
	j.help()
	j.wait()
}

// Share is Parallel for a part of a task: threads that wait for the last tasks of a job to end help, where there are any;
// else the calling thread does all.
func Share(tasks int, do func(task int)) {
	helpers := min(Waiting(), tasks-1)
	if helpers < 1 {
		for i := range tasks {
			do(i)
		}
		return
	}
	j := newJob(tasks, do)
	invite(pool.shares, j, helpers)
	j.work()
	spin(func() bool { return j.left.Load() == 0 })
	j.wait()
}

// Waiting is how many threads would help with a [Share] now.
func Waiting() int { return min(int(pool.waiting.Load()), runtime.GOMAXPROCS(0)-1) }

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

// help does shares of other threads while tasks of j are not done.
func (j *job) help() {
	pool.waiting.Add(1)
	defer pool.waiting.Add(-1)
	spin(func() bool {
		if j.left.Load() == 0 {
			return true
		}
		if share := take(pool.shares); share != nil {
			pool.waiting.Add(-1)
			share.work()
			pool.waiting.Add(1)
		}
		return false
	})
}

// take takes a job from a queue, nil where none is there.
func take(queue chan *job) *job {
	if len(queue) == 0 {
		return nil
	}
	select {
	case j := <-queue:
		return j
	default:
		return nil
	}
}

// invite puts a job in a queue n times. Where so many jobs wait for threads that the queue is full, the caller had better do
// it alone.
func invite(queue chan *job, j *job, n int) {
	for range n {
		select {
		case queue <- j:
		default:
			return
		}
	}
}

// hire sees to it that there are n workers.
func hire(n int) {
	pool.Lock()
	defer pool.Unlock()
	for ; pool.workers < n; pool.workers++ {
		go func() {
			for {
				nextJob().work()
			}
		}()
	}
}

// nextJob waits for a job or a share.
func nextJob() *job {
	pool.waiting.Add(1)
	defer pool.waiting.Add(-1)
	spin(func() bool { return len(pool.jobs) > 0 || len(pool.shares) > 0 })
	select {
	case j := <-pool.jobs:
		return j
	case j := <-pool.shares:
		return j
	}
}
