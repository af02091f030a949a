package datasets

import "github.com/goqat/goqat/internal/kernel"

// lanes is how many images lie side by side in a batch; the kernels' vectors have as many lanes.
const lanes = kernel.Lanes

// absent is the label of a lane that holds no image.
const absent = -1

// tile is how many pixels of every lane Fill writes before it goes on: tile·lanes float32 stay in the first cache.
const tile = 64

const fillSizes = "datasets: Fill: dst and labels must have ceil(len(indices)/16) blocks of 16 images"

// PixelTable returns what each byte of a channel is worth to a net:
//
//	table[p] = float32((p/255 − Mean)/Std)
//
// where every operation is a float64 one, so that the only rounding that shows is the last, to float32.
func (d *Dataset) PixelTable(channel int) [256]float32 {
	mean, std := float64(d.Mean[channel]), float64(d.Std[channel])
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
	blocks := (len(indices) + lanes - 1) / lanes
	blockSize := d.imageSize() * lanes
	if len(dst) != blocks*blockSize || len(labels) != blocks*lanes {
		panic(fillSizes)
	}
	tables := make([][256]float32, d.Channels)
	for c := range tables {
		tables[c] = d.PixelTable(c)
	}
	for b := range blocks {
		block := indices[b*lanes : min((b+1)*lanes, len(indices))]
		d.fillLabels(labels[b*lanes:(b+1)*lanes], block)
		d.fillBlock(dst[b*blockSize:(b+1)*blockSize], block, tables)
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

// fillBlock writes up to 16 images into dst, [Channels][Height][Width][16].
func (d *Dataset) fillBlock(dst []float32, indices []int, tables [][256]float32) {
	if len(indices) < lanes {
		clear(dst)
	}
	plane := d.Height * d.Width
	for c := range d.Channels {
		for from := c * plane; from < (c+1)*plane; from += tile {
			to := min(from+tile, (c+1)*plane)
			for lane, i := range indices {
				scatter(dst[from*lanes+lane:], d.Image(i)[from:to], &tables[c])
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
