package layers

import (
	"fmt"

	"github.com/goqat/goqat/integer"
	"github.com/goqat/goqat/quantops"
)

var _ Layer = (*Residual)(nil)

// Residual is y = Body(x) + Shortcut(x). The sum is a tensor of its own, wider than what convolutions take in: each
// consumer quantizes it for itself (real numbers in training, fixed point of 24 bits in evaluation and on integers).
//
// To be trained, a shortcut with parameters has to begin with a layer that has some; beside a shortcut without any, the body.
//
// He et al., "Deep Residual Learning for Image Recognition", 2016.
type Residual struct {
	Body     Layer
	Shortcut Layer // nil for the identity
}

func (l *Residual) layers() []Layer {
	if l.Shortcut == nil {
		return []Layer{l.Body}
	}
	return []Layer{l.Body, l.Shortcut}
}

// Build builds body and shortcut, whose outputs must have one shape.
func (l *Residual) Build(b *Build, in Shape) (Shape, error) {
	body, err := l.Body.Build(b, in)
	if err != nil {
		return Shape{}, err
	}
	shortcut := in
	if l.Shortcut != nil {
		if shortcut, err = l.Shortcut.Build(b, in); err != nil {
			return Shape{}, err
		}
	}
	if body.Channels != shortcut.Channels || body.Height != shortcut.Height || body.Width != shortcut.Width {
		return Shape{}, fmt.Errorf("layers: residual block: the body gives %v, the shortcut %v", body, shortcut)
	}
	body.Signed = body.Signed || shortcut.Signed
	return body, nil
}

// Params returns the parameters of body and shortcut.
func (l *Residual) Params() []*Param {
	params := l.Body.Params()
	if l.Shortcut != nil {
		params = append(params, l.Shortcut.Params()...)
	}
	return params
}

// Forward adds the block to a pass.
func (l *Residual) Forward(p *Pass, x Value) (Value, error) {
	if p.Mode == Training && x.waiting.any() && !x.constant && beginsWeighted(l.Body) && (l.Shortcut == nil || beginsWeighted(l.Shortcut)) {
		return l.keeping(p, x)
	}
	main, shortcut, err := p.fork(x)
	if err != nil {
		return Value{}, err
	}
	if l.Shortcut != nil && len(l.Shortcut.Params()) == 0 {
		main, shortcut = shortcut, main
	}
	if main, err = l.Body.Forward(p, main); err != nil {
		return Value{}, err
	}
	if l.Shortcut != nil {
		if shortcut, err = l.Shortcut.Forward(p, shortcut); err != nil {
			return Value{}, err
		}
	}
	return p.add(main, shortcut)
}

// keeping is Forward for a block whose x the first layer of the body computes and keeps for the shortcut: in the cache, on
// its way to the layer's own work.
func (l *Residual) keeping(p *Pass, x Value) (Value, error) {
	x.keep = &keep{}
	main, err := l.Body.Forward(p, x)
	if err != nil {
		return Value{}, err
	}
	shortcut := x.with(x.keep.node, x.Shape)
	if l.Shortcut != nil {
		if shortcut, err = l.Shortcut.Forward(p, shortcut); err != nil {
			return Value{}, err
		}
	}
	return p.add(main, shortcut)
}

// beginsWeighted says whether the first layer of a body has weights.
func beginsWeighted(l Layer) bool {
	if s, ok := l.(Sequential); ok {
		return len(s) > 0 && beginsWeighted(s[0])
	}
	_, ok := l.(interface{ core() *weighted })
	return ok
}

// Lower adds the block to an integer model.
func (l *Residual) Lower(b *integer.Builder, x integer.Value) (integer.Value, error) {
	x, err := b.Widen(x)
	if err != nil {
		return x, err
	}
	main, err := l.Body.Lower(b, x)
	if err != nil {
		return x, err
	}
	if l.Shortcut != nil {
		if x, err = l.Shortcut.Lower(b, x); err != nil {
			return x, err
		}
	}
	return b.Add(main, x)
}

// fork returns x twice; in training a path from the side has to begin with learned parameters, or end in a sum with one
// from main that has any. Sums that wait for a requantization are settled first, so that both see the same numbers.
func (p *Pass) fork(x Value) (main, side Value, err error) {
	if x.exact != nil {
		x, err = p.widen(x, integer.WideBits, below(integer.WideBits))
		return x, x, err
	}
	waited := x.waiting.any()
	if x, err = p.settled(x); err != nil || p.Mode != Training {
		return x, x, err
	}
	if !waited {
		first, second, err := quantops.Fork(x.input())
		return x.with(first, x.Shape), x.with(second, x.Shape), err
	}
	second, err := quantops.Side(x.node)
	return x.with(x.node, x.Shape), x.with(second, x.Shape), err
}

// below allows integers that are smaller than 2^bits.
func below(bits int) func(accumulators) bool {
	return func(a accumulators) bool { return a.bound[0][0] < 1<<bits }
}

// add returns x + y.
func (p *Pass) add(x, y Value) (Value, error) {
	shape := x.Shape
	shape.Signed = x.Signed || y.Signed
	if x.exact != nil && y.exact != nil {
		return p.addExact(x, y, shape)
	}
	var err error
	if x, err = p.real(x); err != nil {
		return Value{}, err
	}
	if y, err = p.real(y); err != nil {
		return Value{}, err
	}
	if y, err = p.settled(y); err != nil {
		return Value{}, err
	}
	if x.waiting.shortcut != nil || x.waiting.relu {
		if x, err = p.settled(x); err != nil {
			return Value{}, err
		}
	}
	x.Shape, x.product, x.waiting.shortcut = shape, nil, &y
	return x, nil
}

// addExact adds integers as the engine does: each brought below 2^24, then one requantization of both.
func (p *Pass) addExact(x, y Value, shape Shape) (Value, error) {
	var err error
	for _, operand := range []*Value{&x, &y} {
		if *operand, err = p.widen(*operand, integer.WideBits, below(integer.WideBits)); err != nil {
			return Value{}, err
		}
	}
	f := &wideSum{x: x.exact.describe, y: y.exact.describe}
	p.refresh = append(p.refresh, f.prepare)
	n, err := p.apply(f, shape, x.input(), y.input())
	return Value{Shape: shape, node: n, exact: &exact{describe: func() (accumulators, error) { return f.result, nil }}}, err
}
