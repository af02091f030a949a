package datasets

import (
	"context"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"
)

// partial is the ending of a file that is not whole yet.
const partial = ".part"

// Fetch downloads a registered data set from its authors' addresses into the user's cache folder,
// os.UserCacheDir()/goqat/NAME, where Locate finds it. Each file is written beside its place, checked and only then
// renamed. What an earlier call left unfinished is continued (a Range request); files that are there and whole are kept.
// Addresses, those that a server redirects to included, must be https, or http on this very machine.
//
// progress, if it is not nil, is told how many bytes of all files are done; total is an estimate until the servers have
// told their sizes. When ctx ends or the connection breaks, Fetch returns and can be called again to go on.
//
// Wrong content gives a *FormatError and is removed.
func Fetch(ctx context.Context, name string, progress func(done, total int64)) error {
	files, err := filesOf(name)
	if err != nil {
		return err
	}
	if len(files.Downloads) == 0 {
		return fmt.Errorf("datasets: no address is known to fetch %s from", name)
	}
	dir, err := cacheFolder(name)
	if err != nil {
		return err
	}
	if progress == nil {
		progress = func(done, total int64) {}
	}
	f := fetcher{files: files, dir: dir, client: newClient(), stall: time.Minute, progress: progress}
	if err := f.fetch(ctx); err != nil {
		return fmt.Errorf("datasets: fetch %s: %w", name, err)
	}
	return nil
}

// fetcher downloads one data set.
type fetcher struct {
	files       *Files
	dir         string
	client      *http.Client
	stall       time.Duration // how long a connection may stay silent
	progress    func(done, total int64)
	done, total int64 // bytes of finished files, and of all
	share       int64 // bytes of total that the current file counts for
}

func newClient() *http.Client {
	return &http.Client{CheckRedirect: func(request *http.Request, via []*http.Request) error {
		if len(via) >= 10 {
			return errors.New("more than 10 redirections")
		}
		return trusted(request.URL)
	}}
}

// trusted refuses addresses at which somebody on the way could change the content.
func trusted(u *url.URL) error {
	ip := net.ParseIP(u.Hostname())
	if u.Scheme == "https" || u.Scheme == "http" && ip.IsLoopback() {
		return nil
	}
	return fmt.Errorf("%s is not an https address", u.Redacted())
}

func (f *fetcher) fetch(ctx context.Context) error {
	if err := os.MkdirAll(f.dir, 0o755); err != nil {
		return err
	}
	for _, d := range f.files.Downloads {
		f.total += d.Size
	}
	for _, d := range f.files.Downloads {
		if err := f.get(ctx, d); err != nil {
			return err
		}
	}
	return nil
}

// get makes one file whole. A continued file that turns out wrong is downloaded once more from its start.
func (f *fetcher) get(ctx context.Context, d Download) error {
	f.share = d.Size
	target := filepath.Join(f.dir, path.Base(d.URL))
	part := target + partial
	for _, there := range []string{target, part} {
		if f.check(d, there) == nil {
			f.finish(d.Size)
			return os.Rename(there, target)
		}
	}
	for {
		size, continued, err := f.download(ctx, d, part)
		if err != nil {
			return err
		}
		if err = f.check(d, part); err == nil {
			f.finish(size)
			return os.Rename(part, target)
		}
		if remove := os.Remove(part); remove != nil {
			return fmt.Errorf("%w; remove it: %w", err, remove)
		}
		if !continued {
			return err
		}
	}
}

// expect corrects the size of the current file.
func (f *fetcher) expect(size int64) {
	f.total += size - f.share
	f.share = size
}

// finish counts the current file, which has that size, as done.
func (f *fetcher) finish(size int64) {
	f.expect(size)
	f.done += size
	f.progress(f.done, f.total)
}

// check compares a downloaded file with what is known of it and its members.
func (f *fetcher) check(d Download, name string) error {
	file, err := os.Open(name)
	if err != nil {
		return err
	}
	defer file.Close()
	if d.MD5 != "" {
		h := md5.New()
		if _, err := io.Copy(h, file); err != nil {
			return err
		}
		if got := hex.EncodeToString(h.Sum(nil)); got != d.MD5 {
			return formatErrorf(name, "MD5 is %s; expected %s", got, d.MD5)
		}
		if _, err := file.Seek(0, io.SeekStart); err != nil {
			return err
		}
	}
	read := func(e entry) error {
		_, err := e.read(func(io.Reader) error { return nil })
		return err
	}
	base := path.Base(d.URL)
	if base == f.files.Archive {
		return f.files.eachInArchive(file, name, read)
	}
	for _, m := range f.files.Members {
		if m.Name == strings.TrimSuffix(base, ".gz") {
			return read(entry{Member: m, file: name, size: -1, open: func() (io.ReadCloser, error) { return file, nil }})
		}
	}
	return fmt.Errorf("%s is neither the archive nor a member of the data set", base)
}

// download completes the file part and returns its size, and whether it began with what was there before.
func (f *fetcher) download(ctx context.Context, d Download, part string) (size int64, continued bool, err error) {
	file, err := os.OpenFile(part, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return 0, false, err
	}
	defer file.Close()
	offset, err := file.Seek(0, io.SeekEnd)
	if err != nil {
		return 0, false, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	timer := time.AfterFunc(f.stall, func() { cancel(fmt.Errorf("nothing received for %v", f.stall)) })
	defer timer.Stop()
	response, start, err := f.request(ctx, d, offset)
	if err == nil {
		defer response.Body.Close()
		body := &transfer{Reader: response.Body, f: f, size: start, timer: timer}
		size, err = f.save(file, body, d, response.ContentLength)
	}
	// The cause says more than "context canceled" where the silence ended it.
	if cause := context.Cause(ctx); err != nil && cause != nil {
		err = fmt.Errorf("%s: %w", d.URL, cause)
	}
	return size, start > 0, err
}

// request asks for a file from offset on and returns the offset at which the answer starts: that, or 0. An answer that
// there is nothing from offset on is followed by a request for all.
func (f *fetcher) request(ctx context.Context, d Download, offset int64) (*http.Response, int64, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, d.URL, nil)
	if err != nil {
		return nil, 0, err
	}
	if err := trusted(request.URL); err != nil {
		return nil, 0, err
	}
	request.Header.Set("Accept-Encoding", "identity") // the content is compressed as it is
	if offset > 0 {
		request.Header.Set("Range", fmt.Sprintf("bytes=%d-", offset))
	}
	response, err := f.client.Do(request)
	if err != nil {
		return nil, 0, err
	}
	switch {
	case response.StatusCode == http.StatusOK:
		return response, 0, nil
	case response.StatusCode == http.StatusPartialContent && offset > 0 && startsAt(response, offset):
		return response, offset, nil
	}
	response.Body.Close()
	if offset > 0 && (response.StatusCode == http.StatusRequestedRangeNotSatisfiable || response.StatusCode == http.StatusPartialContent) {
		return f.request(ctx, d, 0)
	}
	return nil, 0, fmt.Errorf("%s: %s", d.URL, response.Status)
}

// startsAt says whether a partial answer starts at offset.
func startsAt(response *http.Response, offset int64) bool {
	return strings.HasPrefix(response.Header.Get("Content-Range"), fmt.Sprintf("bytes %d-", offset))
}

// save writes a body behind the bytes of file that it follows, and flushes them. length is what the server says will
// come, −1 if it does not.
func (f *fetcher) save(file *os.File, body *transfer, d Download, length int64) (size int64, err error) {
	const slack = 1 << 20
	limit := 2*d.Size + slack
	if length > limit-body.size {
		return 0, fmt.Errorf("%s: %d bytes, where about %d were expected", d.URL, body.size+length, d.Size)
	}
	if length >= 0 {
		f.expect(body.size + length)
	}
	if err := file.Truncate(body.size); err != nil {
		return 0, err
	}
	if _, err := file.Seek(body.size, io.SeekStart); err != nil {
		return 0, err
	}
	_, err = io.Copy(file, io.LimitReader(body, limit-body.size))
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		return body.size, fmt.Errorf("%s: the connection ended after %d bytes; fetch again to go on", d.URL, body.size)
	case err != nil:
		return body.size, fmt.Errorf("%s: %w", d.URL, err)
	case body.size >= limit:
		return body.size, fmt.Errorf("%s: more than %d bytes, where about %d were expected", d.URL, limit-1, d.Size)
	}
	return body.size, file.Sync()
}

// transfer is a body on its way. It tells the progress and keeps the timer from expiring.
type transfer struct {
	io.Reader
	f     *fetcher
	size  int64 // of the file so far
	timer *time.Timer
}

func (t *transfer) Read(p []byte) (int, error) {
	n, err := t.Reader.Read(p)
	t.size += int64(n)
	if n > 0 {
		t.timer.Reset(t.f.stall)
		t.f.progress(t.f.done+t.size, t.f.total)
	}
	return n, err
}
