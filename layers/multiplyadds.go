package layers

// multiplier is a layer that is a sum of products.
type multiplier interface {
	// multiplyAdds returns the number of products for one image, those with padding included.
	multiplyAdds() int64
}

var _, _ multiplier = (*Conv2D)(nil), (*Linear)(nil)

// multiplyAdds returns output elements times inputs of each: height·width·Outputs · channels/Groups·Kernel².
func (l *Conv2D) multiplyAdds() int64 {
	return int64(l.out.Len()) * int64(l.in.Channels/l.geometry.Groups*l.Kernel*l.Kernel)
}

// multiplyAdds returns Outputs · features.
func (l *Linear) multiplyAdds() int64 { return int64(l.out.Len()) * int64(l.in.Len()) }

// MultiplyAdds returns how many multiply-adds the convolutions and linear layers need for one image in a pass of a
// mode: every product of the forward pass, those with padding included; in [Training] as many again for the gradient of
// the weights and, in all layers but the first, for that of the inputs.
func (n *Network) MultiplyAdds(mode Mode) int64 {
	total, first := int64(0), true
	walk(n.Root, func(l Layer) {
		m, ok := l.(multiplier)
		if !ok {
			return
		}
		passes := int64(1)
		if mode == Training {
			passes = 3
			if first {
				passes = 2
			}
		}
		total, first = total+passes*m.multiplyAdds(), false
	})
	return total
}
