package train

import (
	"fmt"

	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"
)

// member is one ValueGrad of a Gorgonia model with its float32 contents.
type member struct {
	parameter       Parameter
	value, gradient gorgonia.Value
}

// stepModel is Step for any optimizer: one Update of the model's members, then cleared gradients.
func stepModel(o Optimizer, model []gorgonia.ValueGrad) error {
	members := make([]member, len(model))
	parameters := make([]Parameter, len(model))
	for i, valueGrad := range model {
		var err error
		if members[i], err = newMember(i, valueGrad); err != nil {
			return err
		}
		parameters[i] = members[i].parameter
	}
	if err := o.Update(parameters); err != nil {
		return err
	}
	for _, m := range members {
		m.finish()
	}
	return nil
}

func newMember(i int, valueGrad gorgonia.ValueGrad) (member, error) {
	namer, ok := valueGrad.(gorgonia.Namer)
	if !ok {
		return member{}, fmt.Errorf("train: member %d of the model, a %T, has no method Name; its state is kept under its name", i, valueGrad)
	}
	name := namer.Name()
	gradient, err := valueGrad.Grad()
	if err != nil {
		return member{}, fmt.Errorf("train: gradient of %q: %w", name, err)
	}
	m := member{value: valueGrad.Value(), gradient: gradient}
	m.parameter = Parameter{Name: name, Group: Group{Rate: 1, Decay: 1}}
	if m.parameter.Value, err = floats(m.value); err != nil {
		return member{}, fmt.Errorf("train: value of %q: %w", name, err)
	}
	if m.parameter.Gradient, err = floats(m.gradient); err != nil {
		return member{}, fmt.Errorf("train: gradient of %q: %w", name, err)
	}
	if len(m.parameter.Value) > 1 && !m.value.Shape().Eq(gradient.Shape()) {
		return member{}, fmt.Errorf("train: %q has shape %v but its gradient has %v", name, m.value.Shape(), gradient.Shape())
	}
	return m, nil
}

// finish writes back a scalar, which floats had to copy, and clears the gradient.
func (m member) finish() {
	if scalar, ok := m.value.(*gorgonia.F32); ok {
		*scalar = gorgonia.F32(m.parameter.Value[0])
	}
	gorgonia.ZeroValue(m.gradient)
}

// floats returns the contents of a float32 value: those of a tensor itself, of a scalar a copy.
func floats(v gorgonia.Value) ([]float32, error) {
	switch v := v.(type) {
	case *gorgonia.F32:
		return []float32{float32(*v)}, nil
	case *tensor.Dense:
		switch {
		case v.Dtype() != tensor.Float32:
			return nil, fmt.Errorf("is of type %v; want float32", v.Dtype())
		case v.RequiresIterator() || v.DataOrder().IsColMajor() || !v.IsNativelyAccessible():
			return nil, fmt.Errorf("is not contiguous and row-major in memory")
		}
		return v.Float32s(), nil
	case nil:
		return nil, fmt.Errorf("is not there; run the machine first")
	default:
		return nil, fmt.Errorf("is a %T; want a float32 tensor or scalar", v)
	}
}
