package train

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"gorgonia.org/gorgonia"
)

// Group says how an optimizer treats a parameter.
type Group struct {
	Name  string  // for reports and error messages; it has no effect on the update
	Rate  float64 // factor on the learning rate; 0 counts as 1 (to freeze a parameter, leave it out of Update)
	Decay float64 // factor on the weight decay; 0 switches it off for this parameter
}

// Parameter is one trained tensor as an optimizer sees it. Value and Gradient are of equal length.
type Parameter struct {
	Name     string    // unique among the parameters of an optimizer: its state is kept under this name
	Value    []float32 // updated in place
	Gradient []float32 // read, never written
	Group    Group
}

// State is one tensor of an optimizer's memory, ready to be saved. Exactly one of Float32 and Float64 is set.
type State struct {
	Name    string // slot/parameter, for example "momentum/conv1.weight"
	Steps   uint64 // updates the parameter has had, at least 1
	Float32 []float32
	Float64 []float64
}

// Optimizer updates parameters from their gradients and can save and restore what it remembers of them.
// Its memory goes by parameter names and holds no graph object, so a rebuilt graph goes on where the old one stopped.
//
// An update is element by element in float32, each operation rounded, so its bits depend neither on the
// platform nor on threads. Hyperparameters are multiplied in float64 and rounded to float32 once per update.
type Optimizer interface {
	// Step updates every member of a plain Gorgonia model and then clears the gradients, as Gorgonia's own
	// solvers do. Members need a Name method, as *gorgonia.Node has, and float32 values; each is in a Group
	// with Rate 1 and Decay 1.
	gorgonia.Solver

	// SetLearningRate sets the learning rate of the following updates. It must be finite and not negative.
	SetLearningRate(rate float64)

	// Update makes one step. On an error no value has changed: a NaN or Inf in a gradient or in what would be
	// stored is a *NonFiniteError, a length that differs from the remembered one, or restored state that finds no
	// parameter of its name, is a *StateError.
	Update(parameters []Parameter) error

	// State returns a copy of the memory: parameters in order of their names, slots in a fixed order.
	State() []State

	// Restore replaces the memory by a copy of states, or returns a *StateError and changes nothing. The first Update
	// that follows must bring a parameter for every restored tensor; parameters without one start afresh.
	Restore(states []State) error
}

// NonFiniteError tells where an update met or would have stored a NaN or an infinity.
type NonFiniteError struct {
	Parameter string
	What      string // "gradient" or "update"
	Index     int    // element, row-major
}

func (e *NonFiniteError) Error() string {
	return fmt.Sprintf("train: the %s of parameter %q is NaN or Inf at element %d", e.What, e.Parameter, e.Index)
}

// StateError tells which optimizer state does not fit.
type StateError struct {
	Name   string // as in State.Name
	Reason string
}

func (e *StateError) Error() string {
	return fmt.Sprintf("train: optimizer state %q %s", e.Name, e.Reason)
}

// history is what an optimizer remembers of one parameter.
type history struct {
	steps   uint64
	moments [][]float32 // one for each of layout.moments, as long as the parameter
	powers  []float64   // running products of the betas, layout.powers of them
}

// layout names the slots of an optimizer's histories.
type layout struct {
	moments []string
	powers  int // 0: the optimizer has none
}

const powersSlot = "bias_powers"

// step is the update of one parameter with all its constants. Run computes it; without commit it stores
// nothing and returns the first element whose result is not finite, or -1.
type step interface {
	run(commit bool) (bad int)
}

// memory holds the histories by parameter name.
type memory struct {
	histories map[string]*history
	restored  bool // restored histories have not yet met their parameters
}

// update makes one step of all parameters: every check and a trial run come before the first store.
func (m *memory) update(l layout, parameters []Parameter, newStep func(Parameter, *history) step) error {
	if err := checkParameters(parameters); err != nil {
		return err
	}
	histories, err := m.open(l, parameters)
	if err != nil {
		return err
	}
	steps := make([]step, len(parameters))
	for i, p := range parameters {
		steps[i] = newStep(p, histories[i])
		if bad := steps[i].run(false); bad >= 0 {
			return &NonFiniteError{Parameter: p.Name, What: "update", Index: bad}
		}
	}
	for i, p := range parameters {
		steps[i].run(true)
		m.keep(l, p.Name, histories[i])
	}
	m.restored = false
	return nil
}

// keep stores a history after its step. An optimizer without slots remembers nothing.
func (m *memory) keep(l layout, name string, h *history) {
	if len(l.moments) == 0 {
		return
	}
	if m.histories == nil {
		m.histories = map[string]*history{}
	}
	h.steps++
	m.histories[name] = h
}

// open returns the history of each parameter, a fresh one where there is none.
func (m *memory) open(l layout, parameters []Parameter) ([]*history, error) {
	histories := make([]*history, len(parameters))
	for i, p := range parameters {
		h, known := m.histories[p.Name]
		if !known || len(l.moments) == 0 { // SGD's momentum may have been switched off since
			histories[i] = l.fresh(len(p.Value))
			continue
		}
		if n := len(h.moments[0]); n != len(p.Value) {
			return nil, &StateError{l.moments[0] + "/" + p.Name,
				fmt.Sprintf("holds %d values; the parameter has %d", n, len(p.Value))}
		}
		histories[i] = h
	}
	return histories, m.checkRestored(l, parameters)
}

// checkRestored demands that every restored history has found its parameter: a leftover means that a parameter was
// renamed or dropped, and that its successor would silently start without its past.
func (m *memory) checkRestored(l layout, parameters []Parameter) error {
	if !m.restored || len(l.moments) == 0 {
		return nil
	}
	present := map[string]bool{}
	for _, p := range parameters {
		present[p.Name] = true
	}
	for _, name := range m.names() {
		if !present[name] {
			return &StateError{l.moments[0] + "/" + name, "was restored, but no parameter has that name"}
		}
	}
	return nil
}

// state lists the histories for State.
func (m *memory) state(l layout) []State {
	var states []State
	for _, name := range m.names() {
		h := m.histories[name]
		for k, slot := range l.moments {
			states = append(states, State{Name: slot + "/" + name, Steps: h.steps, Float32: slices.Clone(h.moments[k])})
		}
		if l.powers > 0 {
			states = append(states, State{Name: powersSlot + "/" + name, Steps: h.steps, Float64: slices.Clone(h.powers)})
		}
	}
	return states
}

// restore replaces the histories by those of states.
func (m *memory) restore(l layout, states []State) error {
	restored := memory{histories: map[string]*history{}, restored: true}
	for _, s := range states {
		slot, name, found := strings.Cut(s.Name, "/")
		if !found || name == "" {
			return &StateError{s.Name, "has no name of the form slot/parameter"}
		}
		h, ok := restored.histories[name]
		if !ok {
			h = &history{steps: s.Steps, moments: make([][]float32, len(l.moments))}
			restored.histories[name] = h
		}
		if reason := l.put(h, slot, s); reason != "" {
			return &StateError{s.Name, reason}
		}
	}
	for _, name := range restored.names() {
		if err := l.complete(name, restored.histories[name]); err != nil {
			return err
		}
	}
	*m = restored
	return nil
}

func (m *memory) names() []string {
	names := make([]string, 0, len(m.histories))
	for name := range m.histories {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// fresh is the history of a parameter of n elements before its first step.
func (l layout) fresh(n int) *history {
	h := &history{moments: make([][]float32, len(l.moments)), powers: make([]float64, l.powers)}
	for k := range h.moments {
		h.moments[k] = make([]float32, n)
	}
	for k := range h.powers {
		h.powers[k] = 1
	}
	return h
}

// put stores one saved tensor in h, or says what is wrong with it.
func (l layout) put(h *history, slot string, s State) (reason string) {
	if s.Steps == 0 || s.Steps != h.steps {
		return fmt.Sprintf("has %d steps; want at least 1 and as many as the parameter's other slots", s.Steps)
	}
	if l.powers > 0 && slot == powersSlot {
		return l.putPowers(h, s)
	}
	k := slices.Index(l.moments, slot)
	switch {
	case k < 0:
		return fmt.Sprintf("has a slot this optimizer does not have (it has: %s)", l.slots())
	case h.moments[k] != nil:
		return "appears twice"
	case len(s.Float32) == 0 || s.Float64 != nil:
		return "must hold float32 values"
	}
	if bad := firstNonFinite(s.Float32); bad >= 0 {
		return fmt.Sprintf("is NaN or Inf at element %d", bad)
	}
	h.moments[k] = slices.Clone(s.Float32)
	return ""
}

func (l layout) putPowers(h *history, s State) (reason string) {
	switch {
	case h.powers != nil:
		return "appears twice"
	case len(s.Float64) != l.powers || s.Float32 != nil:
		return fmt.Sprintf("must hold %d float64 values", l.powers)
	}
	for _, power := range s.Float64 {
		if !(power >= 0 && power < 1) {
			return fmt.Sprintf("holds %v; want a product of betas, in [0, 1)", power)
		}
	}
	h.powers = slices.Clone(s.Float64)
	return ""
}

// complete demands that a restored parameter has all its slots, of one length.
func (l layout) complete(name string, h *history) error {
	for k, slot := range l.moments {
		if h.moments[k] == nil {
			return &StateError{slot + "/" + name, "is missing"}
		}
		if len(h.moments[k]) != len(h.moments[0]) {
			return &StateError{slot + "/" + name,
				fmt.Sprintf("holds %d values; its slot %s holds %d", len(h.moments[k]), l.moments[0], len(h.moments[0]))}
		}
	}
	if len(h.powers) != l.powers {
		return &StateError{powersSlot + "/" + name, "is missing"}
	}
	return nil
}

func (l layout) slots() string {
	slots := slices.Clone(l.moments)
	if l.powers > 0 {
		slots = append(slots, powersSlot)
	}
	if len(slots) == 0 {
		return "none"
	}
	return strings.Join(slots, ", ")
}

// checkParameters checks names, lengths and groups of all parameters, then all gradients.
func checkParameters(parameters []Parameter) error {
	seen := make(map[string]bool, len(parameters))
	for i, p := range parameters {
		switch {
		case p.Name == "":
			return fmt.Errorf("train: parameter %d has no name; its state is kept under its name", i)
		case seen[p.Name]:
			return fmt.Errorf("train: two parameters are named %q; names must be unique", p.Name)
		case len(p.Value) == 0 || len(p.Value) != len(p.Gradient):
			return fmt.Errorf("train: parameter %q has %d values and %d gradients; want equal numbers, at least 1",
				p.Name, len(p.Value), len(p.Gradient))
		case !nonNegative(p.Group.Rate) || !nonNegative(p.Group.Decay):
			return fmt.Errorf("train: group %q of parameter %q has rate %v and decay %v; both must be finite and not negative",
				p.Group.Name, p.Name, p.Group.Rate, p.Group.Decay)
		}
		seen[p.Name] = true
	}
	for _, p := range parameters {
		if bad := firstNonFinite(p.Gradient); bad >= 0 {
			return &NonFiniteError{Parameter: p.Name, What: "gradient", Index: bad}
		}
	}
	return nil
}

// scaled returns the learning rate and weight decay of a group.
func (g Group) scaled(learningRate, weightDecay float64) (rate, decay float64) {
	if g.Rate == 0 {
		return learningRate, weightDecay * g.Decay
	}
	return learningRate * g.Rate, weightDecay * g.Decay
}

// decayFactors returns the float32 factors of the two kinds of weight decay, one of them 0:
// gradient += penalty·value, or value -= shrink·value.
func decayFactors(rate, decay float64, decoupled bool) (penalty, shrink float32) {
	if decoupled {
		return 0, float32(rate * decay)
	}
	return float32(decay), 0
}

// checkRate refuses a learning rate that is unusable or was never set.
func checkRate(rate float64, set bool) error {
	if !nonNegative(rate) {
		return fmt.Errorf("train: learning rate %v; it must be finite and not negative", rate)
	}
	if rate == 0 && !set {
		return fmt.Errorf("train: the learning rate was never set; set the field LearningRate or call SetLearningRate")
	}
	return nil
}

func nonNegative(x float64) bool { return x >= 0 && x <= math.MaxFloat64 }

// finite is false for NaN and the infinities: x−x is then NaN.
func finite(x float32) bool { return x-x == 0 }

func firstNonFinite(x []float32) int {
	return slices.IndexFunc(x, func(v float32) bool { return !finite(v) })
}
