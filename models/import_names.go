package models

import "regexp"

// renaming replaces what matches a pattern in the name of a checkpoint's tensor.
type renaming struct {
	pattern     *regexp.Regexp
	replacement string
}

// wrapperPrefix is what programs that wrap a model put before all names: DataParallel, torch.compile, Lightning.
var wrapperPrefix = regexp.MustCompile(`^(module\.|_orig_mod\.|model\.)+`)

// renamings take the names of common residual networks to those of the networks here, in order, after wrapperPrefix is gone.
// A name that the network itself has stays as it is.
var renamings = []renaming{
	// torchvision and chenyaofo say downsample, akamaster and kuangliu shortcut: a convolution and its normalization.
	{regexp.MustCompile(`\.(shortcut|downsample)\.0\.`), ".shortcut.conv."},
	{regexp.MustCompile(`\.(shortcut|downsample)\.1\.`), ".shortcut.bn."},
	// torchvision says fc, akamaster and kuangliu linear, timm head or classifier, Keras dense.
	{regexp.MustCompile(`^(linear|classifier|head|dense)\.`), "fc."},
}

// numbering names the layers of a network that numbers them in order, by kind. The file is known by a few of its tensors.
type numbering struct {
	signature []string
	layers    map[string]string
}

var numberings = []numbering{
	{
		// MLPerf Tiny's ResNet-8, numbered as the layers of its Keras model.
		signature: []string{"conv0.weight", "conv8.weight", "bn0.weight", "bn6.weight", "dense.weight"},
		layers: map[string]string{
			"conv0": "conv1", "bn0": "bn1",
			"conv1": "layer1.0.conv1", "bn1": "layer1.0.bn1",
			"conv2": "layer1.0.conv2", "bn2": "layer1.0.bn2",
			"conv3": "layer2.0.conv1", "bn3": "layer2.0.bn1",
			"conv4": "layer2.0.conv2", "bn4": "layer2.0.bn2",
			"conv5": "layer2.0.shortcut.conv",
			"conv6": "layer3.0.conv1", "bn5": "layer3.0.bn1",
			"conv7": "layer3.0.conv2", "bn6": "layer3.0.bn2",
			"conv8": "layer3.0.shortcut.conv",
			"dense": "fc",
		},
	},
}

// translator turns the names of a checkpoint's tensors into those that a network's parameters would have.
type translator struct {
	own       map[string]bool // the network's
	numbering *numbering      // nil for none
}

func newTranslator(own map[string]bool, tensors []Tensor) *translator {
	there := map[string]bool{}
	for _, t := range tensors {
		there[wrapperPrefix.ReplaceAllString(t.Name, "")] = true
	}
	n := &translator{own: own}
	for i := range numberings {
		if numberings[i].describes(there) && !numberings[i].describes(own) {
			n.numbering = &numberings[i]
		}
	}
	return n
}

// describes says whether the signature is among the names.
func (n *numbering) describes(there map[string]bool) bool {
	for _, name := range n.signature {
		if !there[name] {
			return false
		}
	}
	return true
}

// translate returns the network's name of a tensor.
func (n *translator) translate(name string) string {
	if n.own[name] && n.numbering == nil {
		return name
	}
	name = wrapperPrefix.ReplaceAllString(name, "")
	if n.numbering != nil {
		layer, field := splitName(name)
		if own, ok := n.numbering.layers[layer]; ok {
			return own + "." + field
		}
		return name
	}
	if n.own[name] {
		return name
	}
	for _, r := range renamings {
		name = r.pattern.ReplaceAllString(name, r.replacement)
	}
	return name
}
