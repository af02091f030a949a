package layers

import "github.com/goqat/goqat/integer"

var _ Layer = Sequential(nil)

// Sequential is layers one after the other.
type Sequential []Layer

func (s Sequential) layers() []Layer { return s }

// Build builds the layers in order.
func (s Sequential) Build(b *Build, in Shape) (Shape, error) {
	var err error
	for _, l := range s {
		if in, err = l.Build(b, in); err != nil {
			return Shape{}, err
		}
	}
	return in, nil
}

// Forward adds the layers to a pass.
func (s Sequential) Forward(p *Pass, x Value) (Value, error) {
	var err error
	for _, l := range s {
		if x, err = l.Forward(p, x); err != nil {
			return Value{}, err
		}
	}
	return x, nil
}

// Lower adds the layers to an integer model.
func (s Sequential) Lower(b *integer.Builder, x integer.Value) (integer.Value, error) {
	var err error
	for _, l := range s {
		if x, err = l.Lower(b, x); err != nil {
			return x, err
		}
	}
	return x, nil
}

// Params returns the layers' parameters in order.
func (s Sequential) Params() []*Param {
	var params []*Param
	for _, l := range s {
		params = append(params, l.Params()...)
	}
	return params
}
