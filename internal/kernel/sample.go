package kernel

// Sample takes every Stride-th row and column of each channel and puts Before channels of zeros before the channels and
// After behind them: the parameterless shortcut of residual networks.
type Sample struct {
	Blocks, Channels, Height, Width int // of the input
	Stride, Before, After           int
}

// Out returns channels, height and width of the output.
func (s *Sample) Out() (channels, height, width int) {
	return s.Channels + s.Before + s.After, ceil(s.Height, s.Stride), ceil(s.Width, s.Stride)
}

// Forward computes y from x.
func (s *Sample) Forward(y, x []float32) {
	channels, height, width := s.Out()
	in, out := s.Height*s.Width*Lanes, height*width*Lanes
	Parallel(s.Blocks*channels, func(plane int) {
		y := y[plane*out:][:out]
		if source, ok := s.source(plane); ok {
			s.gather(y, x[source*in:][:in])
		} else {
			clear(y)
		}
	})
}

// source is the plane of the input that a plane of the output is taken from; ok is false for one of zeros.
func (s *Sample) source(plane int) (source int, ok bool) {
	channels, _, _ := s.Out()
	block, channel := plane/channels, plane%channels-s.Before
	return block*s.Channels + channel, 0 <= channel && channel < s.Channels
}

func (s *Sample) gather(y, x []float32) {
	_, height, width := s.Out()
	for i := range height {
		to, from := y[i*width*Lanes:][:width*Lanes], x[i*s.Stride*s.Width*Lanes:][:s.Width*Lanes]
		for j := range width {
			*(*[Lanes]float32)(to[j*Lanes:]) = *(*[Lanes]float32)(from[j*s.Stride*Lanes:])
		}
	}
}

// Gradient computes dx from dy.
func (s *Sample) Gradient(dx, dy []float32) {
	channels, height, width := s.Out()
	in, out := s.Height*s.Width*Lanes, height*width*Lanes
	Parallel(s.Blocks*channels, func(plane int) {
		if source, ok := s.source(plane); ok {
			s.scatter(dx[source*in:][:in], dy[plane*out:][:out])
		}
	})
}

func (s *Sample) scatter(dx, dy []float32) {
	_, height, width := s.Out()
	clear(dx)
	for i := range height {
		to, from := dx[i*s.Stride*s.Width*Lanes:][:s.Width*Lanes], dy[i*width*Lanes:][:width*Lanes]
		for j := range width {
			*(*[Lanes]float32)(to[j*s.Stride*Lanes:]) = *(*[Lanes]float32)(from[j*Lanes:])
		}
	}
}
