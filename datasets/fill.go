package datasets

import "github.com/goqat/goqat/internal/kernel"

// lanes is how many images lie side by side in a batch; the kernels' vectors have as many lanes.
const lanes = kernel.Lanes

// absent is the label of a lane that holds no image.
const absent = -1

// tile is how many pixels of every lane Fill writes before it goes on: tile·lanes float32 stay in the first cache.
const tile = 64

// byteStd keeps raw bytes as they are. No float32 is near enough to 1/255 for that.
const byteStd float32 = 1.0 / 255

const fillSizes = "datasets: Fill: dst and labels must have ceil(len(indices)/16) blocks of 16 images"

// PixelTable returns what each byte of a channel is worth to a net:
//
//	table[p] = float32((p/255 − Mean)/Std)
//
// where every operation is a float64 one, so that the only rounding that shows is the last, to float32. The float32
// nearest to 1/255 stands for 1/255 itself as Std: with a Mean of 0, a byte is then worth exactly itself.
func (d *Dataset) PixelTable(channel int) [256]float32 {
	mean, std := float64(d.Mean[channel]), float64(d.Std[channel])
	if d.Std[channel] == byteStd {
		std = 1.0 / 255
	}
	var table [256]float32
	for p := range table {
		table[p] = float32((float64(p)/255 - mean) / std)
	}
	return table
}

// Fill writes the normalized images of these indices into a batch of blocks = ceil(len(indices)/16) blocks: dst is
// [blocks][Channels][Height][Width][16], labels is [blocks][16]. Lanes beyond the last index get zeros and label −1.
// It panics if dst or labels have another size or an index is not in [0, Len()).
func (d *Dataset) Fill(dst []float32, labels []int32, indices []int) {
	newFiller(d, Augmentation{}, 0).fill(dst, labels, indices, 0)
}

// filler fills batches of one data set without allocating anything. It is not safe for concurrent use.
type filler struct {
	d       *Dataset
	tables  [][256]float32 // by channel
	planner planner
	changed []uint8        // 16 augmented images; nil if images stay as they are
	images  [lanes][]uint8 // of the current block
}

// newFiller panics if the augmentation does not fit the data set.
func newFiller(d *Dataset, a Augmentation, seed uint64) *filler {
	f := &filler{d: d, tables: make([][256]float32, d.Channels)}
	for c := range f.tables {
		f.tables[c] = d.PixelTable(c)
	}
	if a != (Augmentation{}) {
		if err := a.Validate(d); err != nil {
			panic(err.Error())
		}
		f.planner = newPlanner(a, seed)
		f.changed = make([]uint8, lanes*d.imageSize())
	}
	return f
}

// fill does what Fill and FillAugmented promise.
func (f *filler) fill(dst []float32, labels []int32, indices []int, position int) {
	blocks := (len(indices) + lanes - 1) / lanes
	blockSize := f.d.imageSize() * lanes
	if len(dst) != blocks*blockSize || len(labels) != blocks*lanes {
		panic(fillSizes)
	}
	if position < 0 {
		panic("datasets: FillAugmented at a negative position")
	}
	for b := range blocks {
		block := indices[b*lanes : min((b+1)*lanes, len(indices))]
		f.d.fillLabels(labels[b*lanes:(b+1)*lanes], block)
		f.choose(block, position+b*lanes)
		f.fillBlock(dst[b*blockSize:(b+1)*blockSize], len(block))
	}
}

func (d *Dataset) fillLabels(labels []int32, indices []int) {
	for lane := range labels {
		labels[lane] = absent
		if lane < len(indices) {
			labels[lane] = int32(d.Labels[indices[lane]])
		}
	}
}

// choose sets the images of a block, the first of which is at that position.
func (f *filler) choose(indices []int, position int) {
	size := f.d.imageSize()
	for lane, i := range indices {
		f.images[lane] = f.d.Image(i)
		if f.changed != nil {
			changed := f.changed[lane*size:][:size]
			f.planner.plan(position+lane).apply(changed, f.images[lane], f.d.Height, f.d.Width, f.planner.Pad)
			f.images[lane] = changed
		}
	}
}

// fillBlock writes the first n chosen images into dst, [Channels][Height][Width][16].
func (f *filler) fillBlock(dst []float32, n int) {
	if n < lanes {
		clear(dst)
	}
	plane := f.d.Height * f.d.Width
	for c := range f.d.Channels {
		for from := c * plane; from < (c+1)*plane; from += tile {
			to := min(from+tile, (c+1)*plane)
			for lane, image := range f.images[:n] {
				scatter(dst[from*lanes+lane:], image[from:to], &f.tables[c])
			}
		}
	}
}

// scatter sets dst[16·p] = table[pixels[p]], eight pixels at a time so that their bounds are checked at once.
func scatter(dst []float32, pixels []uint8, table *[256]float32) {
	const reach = 7*lanes + 1
	for len(pixels) >= 8 {
		p, d := (*[8]uint8)(pixels), (*[reach]float32)(dst)
		d[0*lanes], d[1*lanes], d[2*lanes], d[3*lanes] = table[p[0]], table[p[1]], table[p[2]], table[p[3]]
		d[4*lanes], d[5*lanes], d[6*lanes], d[7*lanes] = table[p[4]], table[p[5]], table[p[6]], table[p[7]]
		pixels, dst = pixels[8:], dst[min(8*lanes, len(dst)):]
	}
	for i, pixel := range pixels {
		dst[i*lanes] = table[pixel]
	}
}
