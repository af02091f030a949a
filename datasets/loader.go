package datasets

import "fmt"

// ahead is how many batches a Loader prepares before they are asked for. A third is in the caller's hands.
const ahead = 2

// Batch is what a step trains on.
type Batch struct {
	Images  []float32 // [ceil(len(Indices)/16)][Channels][Height][Width][16], normalized
	Labels  []int32   // [ceil(len(Indices)/16)][16]; −1 in lanes without an image
	Indices []int     // [batch], of the images in the data set
}

// Loader deals out a Sampler's batches, augmented, and prepares the next two on a goroutine of its own while the caller
// computes. Batch step is, bit for bit,
//
//	FillAugmented(images, labels, sampler.Batch(step), augmentation, seed, step·batch)
//
// whatever was asked for before, so a resumed run goes on as if it had never stopped. A Loader allocates nothing for a
// batch but, once an epoch, the epoch's order. It is not safe for concurrent use.
type Loader struct {
	batch   int
	sampler *Sampler
	filler  *filler

	todo, done chan *prepared
	idle       []*prepared // neither asked for nor in the caller's hands
	current    *prepared   // in the caller's hands
	pending    int         // asked for and not received
	next       int         // the step to ask for next
	closed     bool
	stopped    chan struct{}
}

// prepared is a batch, or room for one, and its step.
type prepared struct {
	Batch
	step int
}

// NewLoader returns a loader of d, which Validate must accept, in batches of batch images, whose order and augmentation
// follow from seed. Close ends its goroutine.
func NewLoader(d *Dataset, batch int, seed uint64, a Augmentation) (*Loader, error) {
	if err := d.Validate(); err != nil {
		return nil, err
	}
	if err := a.Validate(d); err != nil {
		return nil, err
	}
	if limit := maxElements / d.imageSize() / lanes * lanes; batch > limit {
		return nil, fmt.Errorf("datasets: %s: batch of %d images of %d×%d×%d; at most %d are possible", d.Name, batch, d.Channels, d.Height, d.Width, limit)
	}
	sampler, err := NewSampler(d.Len(), batch, seed)
	if err != nil {
		return nil, err
	}
	blocks := (batch + lanes - 1) / lanes
	l := &Loader{
		batch: batch, sampler: sampler, filler: newFiller(d, a, seed),
		todo: make(chan *prepared, ahead+1), done: make(chan *prepared, ahead+1), stopped: make(chan struct{}),
	}
	for range ahead + 1 {
		l.idle = append(l.idle, &prepared{Batch: Batch{
			Images: make([]float32, blocks*lanes*d.imageSize()), Labels: make([]int32, blocks*lanes), Indices: make([]int, batch),
		}})
	}
	go l.prepare()
	return l, nil
}

// prepare fills what is asked for, in order, until Close.
func (l *Loader) prepare() {
	defer close(l.stopped)
	for p := range l.todo {
		copy(p.Indices, l.sampler.Batch(p.step))
		l.filler.fill(p.Images, p.Labels, p.Indices, p.step*l.batch)
		l.done <- p
	}
}

// Next returns the batch of a step, counted from 0, which is valid until the next call of Next or Close. Steps in
// sequence are prepared ahead; any other step may be asked for and takes as long as its preparation. It panics if step
// is negative or the loader is closed.
func (l *Loader) Next(step int) Batch {
	if step < 0 {
		panic("datasets: Next of a negative step")
	}
	if l.closed {
		panic("datasets: Next of a closed Loader")
	}
	if l.current != nil {
		l.idle = append(l.idle, l.current)
		l.current = nil
	}
	if step != l.next-l.pending {
		l.drain()
		l.next = step
	}
	for _, p := range l.idle {
		p.step = l.next
		l.next++
		l.pending++
		l.todo <- p
	}
	l.idle = l.idle[:0]
	l.current = <-l.done
	l.pending--
	return l.current.Batch
}

// drain takes back all that was asked for.
func (l *Loader) drain() {
	for ; l.pending > 0; l.pending-- {
		l.idle = append(l.idle, <-l.done)
	}
}

// Close ends the loader's goroutine and returns when it has ended. A second call does nothing.
func (l *Loader) Close() {
	if l.closed {
		return
	}
	l.closed = true
	close(l.todo)
	<-l.stopped
}
