package torch

import (
	"archive/zip"
	"io"
	"path"
	"strings"
)

// members are those of a zip container, by name below the archive's one folder.
type members map[string]*zip.File

// openZip reads the pickle of a zip file.
func (a *archive) openZip() (any, error) {
	z, err := zip.NewReader(a.reader, a.size)
	if err != nil {
		return nil, formatErrorf("zip: %v", err)
	}
	files, err := newMembers(z)
	if err != nil {
		return nil, err
	}
	if order := files["byteorder"]; order != nil {
		text, err := a.member(order, int64(len("little")))
		if err != nil {
			return nil, err
		}
		if string(text) != "little" {
			return nil, formatErrorf("it was not written on a little-endian machine")
		}
	}
	data, err := a.member(files["data.pkl"], maxPickle)
	if err != nil {
		return nil, err
	}
	a.open = func(s *storage) ([]byte, error) { return a.zipStorage(files, s) }
	root, _, err := a.unpickle(data)
	return root, err
}

// newMembers lists the members of an archive.
func newMembers(z *zip.Reader) (members, error) {
	folder, found := "", 0
	for _, f := range z.File {
		prefix, base := path.Split(f.Name)
		if base == "data.pkl" && strings.Count(prefix, "/") <= 1 {
			folder = prefix
			found++
		}
	}
	if found != 1 {
		return nil, formatErrorf("a zip file with %d members FOLDER/data.pkl: a checkpoint has one", found)
	}
	files := members{}
	for _, f := range z.File {
		name, ok := strings.CutPrefix(f.Name, folder)
		if !ok {
			continue
		}
		if files[name] != nil {
			return nil, formatErrorf("two members of the zip file are named %.80q", f.Name)
		}
		files[name] = f
	}
	if files["constants.pkl"] != nil {
		return nil, formatErrorf("a TorchScript program: want a file of torch.save(model.state_dict(), …)")
	}
	return files, nil
}

func (a *archive) zipStorage(files members, s *storage) ([]byte, error) {
	f := files["data/"+s.key]
	if f == nil {
		return nil, formatErrorf("storage %.80q is not in the zip file", s.key)
	}
	want := int64(s.elements) * int64(s.class.bytes)
	data, err := a.member(f, want)
	if err == nil && int64(len(data)) != want {
		err = formatErrorf("storage %.80q has %d bytes where its tensors say %d", s.key, len(data), want)
	}
	return data, err
}

// member reads a member of at most limit bytes. It must be stored, as PyTorch does, so that it is no larger than the file.
func (a *archive) member(f *zip.File, limit int64) ([]byte, error) {
	size := int64(f.UncompressedSize64)
	switch {
	case f.Method != zip.Store || f.CompressedSize64 != f.UncompressedSize64:
		return nil, formatErrorf("member %.80q is compressed: PyTorch stores them as they are", f.Name)
	case size < 0 || size > limit || size > a.size-a.read:
		return nil, formatErrorf("member %.80q has %d bytes: want at most %d, and all members together at most %d", f.Name, f.UncompressedSize64, limit, a.size)
	}
	a.read += size
	r, err := f.Open()
	if err != nil {
		return nil, formatErrorf("member %.80q: %v", f.Name, err)
	}
	defer r.Close()
	data := make([]byte, size)
	if _, err = io.ReadFull(r, data); err == nil {
		// The checksum is compared at the end of the member, which only a read past it reaches.
		if _, err = r.Read(make([]byte, 1)); err == io.EOF {
			err = nil
		}
	}
	if err != nil {
		return nil, formatErrorf("member %.80q: %v", f.Name, err)
	}
	return data, nil
}
