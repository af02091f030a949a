package train

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"slices"

	"github.com/goqat/goqat/datasets"
	"github.com/goqat/goqat/layers"
	"github.com/goqat/goqat/quantops"
)

// CodebookSearch finds the codebooks of a network without labels, layer by layer: behind a layer that has its codebook,
// others see what it has become. Of each layer it
//
//  1. takes the Gram matrix of the layer's inputs on the first Images, if its assignment is weighted,
//  2. finds codes and centroids for its real weights ([layers.Codes.Find]), and
//  3. trains its centroids in so many Steps, with SGD of momentum 0.9, to the softmax of the float network:
//     KL(softmax(float) ‖ softmax(network)), the mean over the images of a step.
//
// In the steps batch normalization uses the batch's statistics, and its running ones follow; all other parameters stand
// still. The rate falls to zero by a cosine in each layer.
//
// Stock et al., "And the Bit Goes Down: Revisiting the Quantization of Neural Networks", 2020.
type CodebookSearch struct {
	Float        *layers.Network // the same network with real weights
	Data         *datasets.Dataset
	Images       int     // that assignments are weighted by
	Steps        int     // of each layer; 0 leaves the centroids as they are found
	LearningRate float64 // the largest
	Batch        int     // images of a step
	Augmentation datasets.Augmentation
	Seed         uint64
	// Report, if there, hears of every layer.
	Report func(CodebookStep)
}

// CodebookStep tells what has become of a layer.
type CodebookStep struct {
	Layer     string        `json:"layer"`
	Vectors   int           `json:"vectors"`          // of its weights
	Length    int           `json:"length"`           // weights of a vector
	Centroids int           `json:"centroids"`        // how many there are
	Error     layers.Figure `json:"error"`            // share of the weights' squares that is lost, or where weighted of their outputs'
	Before    layers.Figure `json:"before"`           // mean loss of the centroids as found, on the batches of the last tenth of the steps
	After     layers.Figure `json:"after"`            // of those trained, on the same batches; NaN for both without steps
	Undone    bool          `json:"undone,omitempty"` // After is not below Before: the centroids are again as they were found
}

// String returns one line.
func (s CodebookStep) String() string {
	text := fmt.Sprintf("%s: %d vectors of %d weights, %d centroids, %.1f %% of the squares lost", s.Layer, s.Vectors, s.Length, s.Centroids, 100*float64(s.Error))
	if math.IsNaN(float64(s.Before)) {
		return text
	}
	text += fmt.Sprintf("; mean loss on the batches of the last tenth of the steps %.4f as found, %.4f trained", float64(s.Before), float64(s.After))
	if s.Undone {
		text += ": centroids are left as found"
	}
	return text
}

// Run finds the codebooks that the network has not found yet. When ctx ends it returns [ErrInterrupted].
func (s *CodebookSearch) Run(ctx context.Context, network *layers.Network) error {
	books := network.Codebooks()
	if err := s.check(network); err != nil {
		return err
	}
	t := &centroidTraining{CodebookSearch: s, network: network}
	if s.Steps > 0 && len(books) > 0 {
		if err := t.prepare(); err != nil {
			return err
		}
		defer t.close()
	}
	for _, book := range books {
		if ctx.Err() != nil {
			return ErrInterrupted
		}
		if book.Found() {
			continue
		}
		step, err := findCodes(ctx, network, book, s.Data, s.Images)
		if err != nil {
			return err
		}
		if err := t.improve(ctx, book, &step); err != nil {
			return err
		}
		if s.Report != nil {
			s.Report(step)
		}
	}
	return nil
}

func (s *CodebookSearch) check(network *layers.Network) error {
	switch {
	case s.Float == nil || s.Data == nil:
		return errors.New("train: codebooks without float network or data")
	case s.Steps < 0 || s.Steps > 0 && (s.Batch < 1 || !(s.LearningRate > 0)):
		return fmt.Errorf("train: %d steps of %d images at rate %v for codebooks: want 0 or more of at least 1 at more than 0", s.Steps, s.Batch, s.LearningRate)
	case s.Steps > 0 && s.Batch > s.Data.Len():
		return fmt.Errorf("train: steps of %d images for codebooks: there are only %d", s.Batch, s.Data.Len())
	}
	if err := sameTask(s.Float, network); err != nil {
		return err
	}
	return fit(network, s.Data)
}

// findCodes finds the codebook of a layer, for inputs that the first images bring.
func findCodes(ctx context.Context, network *layers.Network, book layers.Codes, d *datasets.Dataset, images int) (CodebookStep, error) {
	gram, err := gramOf(ctx, network, book, d, images)
	if err != nil {
		return CodebookStep{}, err
	}
	w, n := book.Values(), book.Length()
	left, err := book.Find(gram)
	if err != nil {
		return CodebookStep{}, err
	}
	return CodebookStep{
		Layer: book.Layer, Vectors: len(w) / n, Length: n, Centroids: len(book.Centroids().Data()) / n,
		Error: layers.Figure(left / energy(w, n, gram)),
	}, nil
}

// gramOf returns the sum of the Gram matrices of what the vectors of a layer's weights are multiplied with; nil where
// these have no weight.
func gramOf(ctx context.Context, network *layers.Network, book layers.Codes, d *datasets.Dataset, images int) ([]float64, error) {
	if !book.Weighted() {
		return nil, nil
	}
	moments, err := (&Collection{Network: network, Data: d, Images: images}).Run(ctx, book.Layer)
	if err != nil {
		return nil, err
	}
	n := book.Length()
	sum := make([]float64, n*n)
	for _, m := range moments[0].Groups {
		for from := 0; from < m.Inputs; from += n {
			for i := range n {
				for j, v := range m.Gram[(from+i)*m.Inputs+from:][:n] {
					sum[i*n+j] += v
				}
			}
		}
	}
	return sum, nil
}

// energy is what a codebook of zeros would miss: Σ vᵀ·G·v over the vectors of n weights.
func energy(w []float32, n int, gram []float64) float64 {
	sum := 0.0
	for from := 0; from < len(w); from += n {
		v := w[from:][:n]
		for i := range v {
			if gram == nil {
				sum += float64(float64(v[i]) * float64(v[i]))
				continue
			}
			for j := range v {
				sum += float64(float64(v[i]) * float64(gram[i*n+j]*float64(v[j])))
			}
		}
	}
	return sum
}

// centroidTraining trains the centroids of one layer after the other.
type centroidTraining struct {
	*CodebookSearch
	network *layers.Network
	teacher *teacher
	loader  *datasets.Loader
	done    int // steps
}

func (t *centroidTraining) prepare() (err error) {
	if t.teacher, err = newTeacher(&Distillation{Teacher: t.Float, Temperature: 1, Weight: 1}, t.Batch); err != nil {
		return err
	}
	t.loader, err = datasets.NewLoader(t.Data, t.Batch, t.Seed, t.Augmentation)
	return err
}

func (t *centroidTraining) close() {
	t.loader.Close()
	t.teacher.evaluator.Close()
}

// improve trains the centroids of a layer, if there are steps to do so, and takes back what was no use.
func (t *centroidTraining) improve(ctx context.Context, book layers.Codes, step *CodebookStep) error {
	if t.Steps == 0 {
		step.Before, step.After = layers.Figure(math.NaN()), layers.Figure(math.NaN())
		return nil
	}
	back := t.remember(book)
	before, after, err := t.train(ctx, book, back)
	if err != nil {
		return err
	}
	step.Before, step.After, step.Undone = layers.Figure(before), layers.Figure(after), !(after < before)
	if step.Undone {
		back()
	}
	return nil
}

// remember returns what sets the centroids of a layer back to what they are now, and with them the running statistics of
// batch normalization, which follow every step.
func (t *centroidTraining) remember(book layers.Codes) (back func()) {
	params := []*layers.Param{book.Centroids()}
	for _, p := range t.network.Params() {
		if p.Kind == quantops.Running {
			params = append(params, p)
		}
	}
	values := make([][]float32, len(params))
	for i, p := range params {
		values[i] = slices.Clone(p.Data())
	}
	return func() {
		for i, p := range params {
			copy(p.Data(), values[i])
		}
	}
}

// train trains the centroids of a layer and returns the mean losses of those found and of those trained by then, on the
// batches of the last tenth of the steps, which neither have been trained on yet.
func (t *centroidTraining) train(ctx context.Context, book layers.Codes, back func()) (before, after float64, err error) {
	runtime.GC() // the graph of the layer before
	graph, err := newGraphOf(t.network, t.Batch, 0, book.Centroids())
	if err != nil {
		return 0, 0, err
	}
	defer graph.machine.Close()
	graph.loss.teacher = t.teacher
	optimizer := &SGD{Momentum: 0.9}
	tenth := (t.Steps + 9) / 10
	for i := range t.Steps {
		if ctx.Err() != nil {
			return 0, 0, ErrInterrupted
		}
		optimizer.SetLearningRate(Cosine{}.Rate(t.LearningRate, Progress{Step: i, Steps: t.Steps, StepsPerEpoch: t.Steps}))
		was, is, err := t.step(graph, optimizer, book, back, i >= t.Steps-tenth)
		if err != nil {
			return 0, 0, fmt.Errorf("train: centroids of %s, step %d: %w", book.Layer, i+1, err)
		}
		before, after = before+was/float64(tenth), after+is/float64(tenth)
	}
	return before, after, nil
}

// step makes a step. Where they are to be compared it returns the losses of the centroids as found and as they were before
// the step, else zeros.
func (t *centroidTraining) step(graph *trainingGraph, optimizer Optimizer, book layers.Codes, back func(), compare bool) (was, is float64, err error) {
	if err = t.load(graph); err != nil {
		return 0, 0, err
	}
	if compare {
		if was, err = t.lossAsFound(graph, book, back); err != nil {
			return 0, 0, err
		}
	}
	if is, err = graph.step(optimizer); !compare {
		is = 0
	}
	return was, is, err
}

// load brings the next batch into a graph, and what the float network says of it.
func (t *centroidTraining) load(graph *trainingGraph) error {
	batch := t.loader.Next(t.done)
	t.done++
	copy(graph.images, batch.Images)
	copy(graph.loss.labels, batch.Labels)
	return t.teacher.look(batch.Images)
}

// lossAsFound returns the loss of the centroids as they were found, to which back leads, on the batch in the graph.
func (t *centroidTraining) lossAsFound(graph *trainingGraph, book layers.Codes, back func()) (float64, error) {
	forth := t.remember(book)
	defer forth()
	back()
	still := &SGD{}
	still.SetLearningRate(0)
	return graph.step(still)
}

// findWeighted finds codebooks whose assignment is weighted by inputs, where they are not there yet, and says whether it
// has found any.
func findWeighted(network *layers.Network, d *datasets.Dataset, images int) (bool, error) {
	found := false
	for _, book := range network.Codebooks() {
		if book.Found() {
			continue
		}
		if _, err := findCodes(context.Background(), network, book, d, images); err != nil {
			return found, err
		}
		found = true
	}
	return found, nil
}

// expanded returns the parameters of a checkpoint with real weights, where it has a codebook of them, set to the
// centroids of their codes: a network of real weights that does what that of codes did, but for their rounding.
func expanded(tensors []Tensor) []Tensor {
	byName, all := tensorsByName(tensors), slices.Clone(tensors)
	for i, t := range all {
		codes, centroids := byName[t.Name+".codes"], byName[t.Name+".centroids"]
		if len(codes.Data) == 0 || len(centroids.Shape) != 2 || len(t.Data) != len(codes.Data)*centroids.Shape[1] {
			continue
		}
		book := quantops.Codebook{Centroids: centroids.Shape[0], Length: centroids.Shape[1]}
		if book.Check(codes.Data) == nil {
			all[i].Data = make([]float32, len(t.Data))
			book.Expand(all[i].Data, codes.Data, centroids.Data)
		}
	}
	return all
}

// takeCodes sets the codebooks of a network to those among the parameters of another, of the same method of weights, where
// there are some of their shapes, and returns how many it has taken over.
func takeCodes(network *layers.Network, from []Tensor) int {
	byName, taken := tensorsByName(from), 0
	for _, book := range network.Codebooks() {
		whole := true
		for _, p := range book.Params() {
			whole = whole && byName[p.Name].fits(p)
		}
		if !whole {
			continue
		}
		for _, p := range book.Params() {
			copy(p.Data(), byName[p.Name].Data)
		}
		taken++
	}
	return taken
}
