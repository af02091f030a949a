package datasets

import (
	"archive/tar"
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"path"
	"strings"
)

// Files describes what a data set's authors publish: how to recognize it in a folder, how to check it and where to get
// it. Checks are of the uncompressed content, because compressed copies differ.
type Files struct {
	Members   []Member   // the content, at least one
	Archive   string     // name of a tar.gz that holds all members; "" if they are files of their own, plain or .gz
	Folder    string     // the members' folder inside Archive; "" without one
	Downloads []Download // where to get all members
	Installed []string   // folders where operating systems' packages put the members
}

// Member is one uncompressed file of a data set. Checksums are hexadecimal; one that is "" is not known.
type Member struct {
	Name        string
	Size        int64 // bytes
	MD5, SHA256 string
}

// Download is one file to get: the archive, or a member with or without .gz.
type Download struct {
	URL  string // https
	Size int64  // bytes to expect; more than twice as many are refused
	MD5  string // of the file itself, for archives whose members' checksums are not known; or ""
}

// A tar.gz may hold so much besides the members; what is beyond is taken for an attack.
const (
	maxOtherBytes   = 64 << 20
	maxOtherEntries = 1000
)

// entry is a member that was found, in a folder or in an archive.
type entry struct {
	Member
	index int    // among Members
	file  string // for people
	size  int64  // what the file system or the archive says; −1 for a compressed file
	open  func() (io.ReadCloser, error)
}

// find says where in a folder the members are: in the folder within, or in the archive.
func (f *Files) find(folder fs.FS) (within string, archive bool, err error) {
	first := f.Members[0].Name
	for _, within := range []string{f.Folder, "."} {
		if within == "" {
			continue
		}
		if _, err := findFile(folder, within, first); err == nil || !errors.Is(err, fs.ErrNotExist) {
			return within, false, err
		}
	}
	if f.Archive == "" {
		_, err := findFile(folder, ".", first)
		return "", false, err
	}
	if err := regular(folder, f.Archive); err == nil || !errors.Is(err, fs.ErrNotExist) {
		return "", true, err
	}
	return "", false, fmt.Errorf("datasets: no %s, folder %s or %s in the folder: %w", first, f.Folder, f.Archive, fs.ErrNotExist)
}

// each hands every member to visit: in the order of Members from a folder, in its own order from an archive.
func (f *Files) each(folder fs.FS, visit func(entry) error) error {
	within, archive, err := f.find(folder)
	if err != nil {
		return err
	}
	if archive {
		file, err := folder.Open(f.Archive)
		if err != nil {
			return fmt.Errorf("datasets: %w", err)
		}
		defer file.Close()
		return f.eachInArchive(file, f.Archive, visit)
	}
	for i := range f.Members {
		if err := visit(f.entryIn(folder, within, i)); err != nil {
			return err
		}
	}
	return nil
}

// entryIn returns a member that lies in a folder; its open reports one that is missing.
func (f *Files) entryIn(folder fs.FS, within string, index int) entry {
	e := entry{Member: f.Members[index], index: index, file: path.Join(within, f.Members[index].Name), size: -1}
	name, err := findFile(folder, within, e.Name)
	if err != nil {
		e.open = func() (io.ReadCloser, error) { return nil, err }
		return e
	}
	e.file = name
	if info, err := fs.Stat(folder, name); err == nil && !strings.HasSuffix(name, ".gz") {
		e.size = info.Size()
	}
	e.open = func() (io.ReadCloser, error) {
		file, err := folder.Open(name)
		if err != nil {
			return nil, fmt.Errorf("datasets: %w", err)
		}
		return file, nil
	}
	return e
}

// eachInArchive hands every member in a tar.gz to visit and ignores other entries. All members must be there, once
// each, and the archive must be whole up to its end.
func (f *Files) eachInArchive(r io.Reader, name string, visit func(entry) error) error {
	plain, err := uncompressed(r, name)
	if err != nil {
		return err
	}
	limited := &limitedReader{r: plain, name: name, left: maxOtherBytes}
	for _, m := range f.Members {
		limited.left += m.Size
	}
	archive := tar.NewReader(limited)
	seen := make([]bool, len(f.Members))
	for range len(f.Members) + maxOtherEntries {
		header, err := archive.Next()
		if err == io.EOF {
			return f.endOfArchive(limited, name, seen)
		}
		if err != nil {
			return archiveError(name, err)
		}
		if err := f.visitEntry(archive, header, name, seen, visit); err != nil {
			return err
		}
	}
	return formatErrorf(name, "more than %d entries", len(f.Members)+maxOtherEntries)
}

// visitEntry hands an entry of an archive to visit if it is a member.
func (f *Files) visitEntry(archive *tar.Reader, header *tar.Header, name string, seen []bool, visit func(entry) error) error {
	i := f.index(header)
	if i < 0 {
		return nil
	}
	e := entry{Member: f.Members[i], index: i, file: name + "/" + f.Members[i].Name, size: header.Size}
	if seen[i] {
		return formatErrorf(e.file, "twice in the archive")
	}
	seen[i] = true
	e.open = func() (io.ReadCloser, error) { return io.NopCloser(archive), nil }
	return visit(e)
}

// index returns which member an archive's entry is, or −1.
func (f *Files) index(header *tar.Header) int {
	if header.Typeflag != tar.TypeReg {
		return -1
	}
	for i, m := range f.Members {
		if path.Clean(header.Name) == path.Join(f.Folder, m.Name) {
			return i
		}
	}
	return -1
}

// endOfArchive reads what follows the last entry, so that gzip's own checksum is compared, and reports missing members.
func (f *Files) endOfArchive(rest io.Reader, name string, seen []bool) error {
	if _, err := io.Copy(io.Discard, rest); err != nil {
		return archiveError(name, err)
	}
	for i, m := range f.Members {
		if !seen[i] {
			return formatErrorf(name, "no %s in the archive", path.Join(f.Folder, m.Name))
		}
	}
	return nil
}

// read hands the uncompressed content to consume, which may leave a rest, and compares size and checksum. It returns
// the checksum that the content has, "" if it could not be read: SHA-256 if that is known of the member, else MD5.
func (e entry) read(consume func(io.Reader) error) (sum string, err error) {
	if e.size >= 0 && e.size != e.Size {
		return "", formatErrorf(e.file, "%d bytes; expected %d", e.size, e.Size)
	}
	file, err := e.open()
	if err != nil {
		return "", err
	}
	defer file.Close()
	plain, err := uncompressed(file, e.file)
	if err != nil {
		return "", err
	}
	h, want, algorithm := e.hash()
	counted := &countingReader{r: io.LimitReader(plain, e.Size+1)}
	r := io.TeeReader(counted, h)
	if err := consume(r); err != nil {
		return "", archiveError(e.file, err)
	}
	if _, err := io.Copy(io.Discard, r); err != nil {
		return "", archiveError(e.file, err)
	}
	sum = hex.EncodeToString(h.Sum(nil))
	switch {
	case counted.n < e.Size:
		return sum, formatErrorf(e.file, "truncated: %d of %d bytes", counted.n, e.Size)
	case counted.n > e.Size:
		return sum, formatErrorf(e.file, "bytes after the first %d", e.Size)
	case want != "" && sum != want:
		return sum, formatErrorf(e.file, "%s of the uncompressed content is %s; expected %s", algorithm, sum, want)
	}
	return sum, nil
}

// hash returns the member's kind of checksum, its value, "" if that is not known, and its name.
func (m Member) hash() (h hash.Hash, want, algorithm string) {
	if m.SHA256 != "" {
		return sha256.New(), m.SHA256, "SHA-256"
	}
	return md5.New(), m.MD5, "MD5"
}

// findFile looks in the folder within for a file of that name, also with a point before idx and with .gz at the end.
// Of several, the first in that order is taken, plain before .gz.
func findFile(folder fs.FS, within, name string) (string, error) {
	dotted := strings.Replace(name, "-idx", ".idx", 1)
	for _, candidate := range []string{name, dotted, name + ".gz", dotted + ".gz"} {
		candidate = path.Join(within, candidate)
		err := regular(folder, candidate)
		if err == nil || !errors.Is(err, fs.ErrNotExist) {
			return candidate, err
		}
	}
	return "", fmt.Errorf("datasets: no %s or %s.gz in the folder: %w", name, name, fs.ErrNotExist)
}

// regular refuses what is no ordinary file; opening a pipe, for one, could wait for ever.
func regular(folder fs.FS, name string) error {
	info, err := fs.Stat(folder, name)
	if err != nil {
		return fmt.Errorf("datasets: %w", err)
	}
	if !info.Mode().IsRegular() {
		return formatErrorf(name, "not a regular file")
	}
	return nil
}

// archiveError tells broken content from a failing disk, whose errors are a *fs.PathError. Among the former are errors
// of package tar that have no name.
func archiveError(name string, err error) error {
	var format *FormatError
	var disk *fs.PathError
	if errors.As(err, &format) {
		return err
	}
	err = readError(name, err)
	if errors.As(err, &format) || errors.As(err, &disk) {
		return err
	}
	return formatErrorf(name, "corrupt: %v", errors.Unwrap(err))
}

// limitedReader fails where io.LimitReader would end.
type limitedReader struct {
	r    io.Reader
	name string
	left int64
}

func (l *limitedReader) Read(p []byte) (int, error) {
	if l.left <= 0 {
		return 0, formatErrorf(l.name, "much larger than the data set")
	}
	n, err := l.r.Read(p[:min(int64(len(p)), l.left)])
	l.left -= int64(n)
	return n, err
}

// countingReader counts what was read.
type countingReader struct {
	r io.Reader
	n int64
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}
