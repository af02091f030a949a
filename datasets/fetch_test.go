package datasets

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// server is a data set's home on this machine. It serves content at every path below /ok, with ranges.
type server struct {
	*httptest.Server
	content []byte
	ranges  []string // the Range header of each request
}

func newServer(t *testing.T, content []byte, answer func(s *server, w http.ResponseWriter, r *http.Request)) *server {
	s := &server{content: content}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.ranges = append(s.ranges, r.Header.Get("Range"))
		answer(s, w, r)
	}))
	t.Cleanup(s.Close)
	return s
}

// serve answers as servers do, ranges included.
func serve(s *server, w http.ResponseWriter, r *http.Request) {
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(s.content))
}

// serveAll ignores Range.
func serveAll(s *server, w http.ResponseWriter, _ *http.Request) { w.Write(s.content) }

// breakAfter announces everything and sends n bytes, to the first request.
func breakAfter(n int) func(*server, http.ResponseWriter, *http.Request) {
	return func(s *server, w http.ResponseWriter, r *http.Request) {
		if len(s.ranges) > 1 {
			serve(s, w, r)
			return
		}
		w.Header().Set("Content-Length", fmt.Sprint(len(s.content)))
		w.Write(s.content[:n])
	}
}

// fetched is a registered data set whose archive a server has, and its cache folder.
type fetched struct {
	name, target, part string
	content            []byte
}

func newFetched(t *testing.T, answer func(*server, http.ResponseWriter, *http.Request)) (fetched, *server) {
	c := tinyCIFAR()
	content := compressed(tarOf(t, tinyEntries(c)...))
	s := newServer(t, content, answer)
	c.files.Downloads = []Download{{URL: s.URL + "/data/tiny.tar.gz", Size: int64(len(content)) + 10}}
	name := register(t, c.files)
	target := filepath.Join(alone(t, name), "tiny.tar.gz")
	return fetched{name, target, target + ".part", content}, s
}

func (f fetched) requireDone(t *testing.T) {
	t.Helper()
	got, err := os.ReadFile(f.target)
	require.NoError(t, err)
	require.Equal(t, f.content, got)
	require.NoFileExists(t, f.part)
	_, err = Verify(f.name, "")
	require.NoError(t, err)
}

func (f fetched) putPart(t *testing.T, data []byte) {
	put(t, filepath.Dir(f.part), filepath.Base(f.part), data)
}

func TestFetch(t *testing.T) {
	f, s := newFetched(t, serve)
	var last, total int64
	require.NoError(t, Fetch(context.Background(), f.name, func(d, all int64) {
		require.GreaterOrEqual(t, d, last)
		last, total = d, all
	}))
	f.requireDone(t)
	require.EqualValues(t, len(f.content), last)
	require.Equal(t, last, total)
	// What is there and whole is not downloaded again.
	require.NoError(t, Fetch(context.Background(), f.name, nil))
	require.Equal(t, []string{""}, s.ranges)
	// What is there and broken is.
	require.NoError(t, os.Truncate(f.target, 100))
	require.NoError(t, Fetch(context.Background(), f.name, nil))
	f.requireDone(t)
	require.Equal(t, []string{"", ""}, s.ranges)
}

func TestFetchGoesOn(t *testing.T) {
	f, s := newFetched(t, breakAfter(100))
	err := Fetch(context.Background(), f.name, nil)
	require.ErrorContains(t, err, "datasets: fetch "+f.name+": "+s.URL+"/data/tiny.tar.gz: the connection ended after 100 bytes; fetch again to go on")
	require.NoFileExists(t, f.target)
	first := int64(0)
	require.NoError(t, Fetch(context.Background(), f.name, func(done, _ int64) {
		if first == 0 {
			first = done
		}
	}))
	require.Greater(t, first, int64(100))
	f.requireDone(t)
	require.Equal(t, []string{"", "bytes=100-"}, s.ranges)
}

func TestFetchWithPart(t *testing.T) {
	for name, test := range map[string]struct {
		answer func(*server, http.ResponseWriter, *http.Request)
		part   func(content []byte) []byte
		ranges []string
	}{
		"server ignores ranges": {serveAll, func(c []byte) []byte { return c[:50] }, []string{"bytes=50-"}},
		"other content":         {serve, func(c []byte) []byte { return make([]byte, 50) }, []string{"bytes=50-", ""}},
		"whole already":         {serve, func(c []byte) []byte { return c }, nil},
		"too long":              {serve, func(c []byte) []byte { return make([]byte, len(c)+1) }, []string{"bytes=LONG-", ""}},
		"another range": {func(s *server, w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Range") != "" {
				r.Header.Set("Range", "bytes=7-")
			}
			serve(s, w, r)
		}, func(c []byte) []byte { return c[:50] }, []string{"bytes=50-", ""}},
	} {
		t.Run(name, func(t *testing.T) {
			f, s := newFetched(t, test.answer)
			part := test.part(f.content)
			f.putPart(t, part)
			require.NoError(t, Fetch(context.Background(), f.name, nil))
			f.requireDone(t)
			if len(test.ranges) > 0 && test.ranges[0] == "bytes=LONG-" {
				test.ranges[0] = fmt.Sprintf("bytes=%d-", len(part))
			}
			require.Equal(t, test.ranges, s.ranges)
		})
	}
}

func TestFetchFails(t *testing.T) {
	status := func(code int) func(*server, http.ResponseWriter, *http.Request) {
		return func(_ *server, w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
	}
	content := func(data []byte) func(*server, http.ResponseWriter, *http.Request) {
		return func(_ *server, w http.ResponseWriter, _ *http.Request) { w.Write(data) }
	}
	wrong := tinyCIFAR()
	entries := tinyEntries(wrong)
	entries[3].data = changed(entries[3].data, 9)
	for name, test := range map[string]struct {
		answer  func(*server, http.ResponseWriter, *http.Request)
		want    string
		content bool
	}{
		"not found":        {status(404), "/data/tiny.tar.gz: 404 Not Found", false},
		"broken server":    {status(500), "500 Internal Server Error", false},
		"unasked range":    {status(206), "206 Partial Content", false},
		"no content":       {status(204), "204 No Content", false},
		"wrong checksum":   {content(compressed(tarOf(t, entries...))), "tiny.tar.gz.part/two.bin: MD5 of the uncompressed content is ", true},
		"page for archive": {content(bytes.Repeat([]byte("<html>"), 200)), "corrupt: archive/tar: invalid tar header", true},
		"nothing":          {content(nil), "no tiny-bin/one.bin in the archive", true},
		"far too large": {func(_ *server, w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", fmt.Sprint(int64(1)<<40))
		}, "1099511627776 bytes, where about ", false},
		"endless": {func(_ *server, w http.ResponseWriter, _ *http.Request) {
			for range 4 << 10 { // in chunks, without a length
				if _, err := w.Write(make([]byte, 1<<10)); err != nil {
					return
				}
			}
		}, "where about ", false},
		"to an http address": {func(_ *server, w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://example.invalid/tiny.tar.gz", http.StatusFound)
		}, "http://example.invalid/tiny.tar.gz is not an https address", false},
		"in circles": {func(_ *server, w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, r.URL.Path, http.StatusFound)
		}, "more than 10 redirections", false},
	} {
		t.Run(name, func(t *testing.T) {
			f, _ := newFetched(t, test.answer)
			err := Fetch(context.Background(), f.name, nil)
			require.ErrorContains(t, err, test.want)
			require.ErrorContains(t, err, "datasets: fetch "+f.name+": ")
			require.NoFileExists(t, f.target)
			if test.content {
				var format *FormatError
				require.ErrorAs(t, err, &format)
				require.NoFileExists(t, f.part)
			}
		})
	}
}

func TestFetchIsInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	f, s := newFetched(t, func(s *server, w http.ResponseWriter, r *http.Request) {
		if len(s.ranges) > 1 {
			serve(s, w, r)
			return
		}
		w.Write(s.content[:100])
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	})
	err := Fetch(ctx, f.name, func(done, _ int64) {
		if done == 100 {
			cancel()
		}
	})
	require.ErrorIs(t, err, context.Canceled)
	require.NoError(t, Fetch(context.Background(), f.name, nil))
	f.requireDone(t)
	require.Equal(t, []string{"", "bytes=100-"}, s.ranges)
}

func TestFetchEndsWithSilence(t *testing.T) {
	f, s := newFetched(t, func(s *server, w http.ResponseWriter, r *http.Request) {
		w.Write(s.content[:100])
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	})
	files, err := filesOf(f.name)
	require.NoError(t, err)
	quick := fetcher{files: files, dir: filepath.Dir(f.target), client: newClient(), stall: 50 * time.Millisecond, progress: func(_, _ int64) {}}
	require.EqualError(t, quick.fetch(context.Background()), s.URL+"/data/tiny.tar.gz: nothing received for 50ms")
	require.FileExists(t, f.part)
}

// Members that are files of their own, one of them not compressed, and an archive's checksum.
func TestFetchMembers(t *testing.T) {
	c := tinyCIFAR()
	c.files.Archive, c.files.Folder = "", ""
	s := newServer(t, nil, func(_ *server, w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/one.bin.gz":
			w.Write(compressed(tinyMember(c, 0)))
		case "/two.bin":
			w.Write(tinyMember(c, 1))
		case "/test.bin.gz":
			w.Write(compressed(tinyMember(c, 2)))
		}
	})
	for _, name := range []string{"one.bin.gz", "two.bin", "test.bin.gz"} {
		c.files.Downloads = append(c.files.Downloads, Download{URL: s.URL + "/" + name, Size: 1000})
	}
	name := register(t, c.files)
	cache := alone(t, name)
	var last, total int64
	require.NoError(t, Fetch(context.Background(), name, func(d, all int64) { last, total = d, all }))
	require.Equal(t, last, total)
	got, err := Locate(name, "")
	require.NoError(t, err)
	require.Equal(t, cache, got)
	_, err = Verify(name, "")
	require.NoError(t, err)
}

func TestFetchChecksTheFileItself(t *testing.T) {
	for _, right := range []bool{true, false} {
		f, s := newFetched(t, serve)
		files, err := filesOf(f.name)
		require.NoError(t, err)
		files.Downloads[0].MD5 = md5Of(f.content)
		if !right {
			s.content = compressed(tarOf(t, tinyEntries(tinyCIFAR())[1:]...)) // sound, but not the one
		}
		err = Fetch(context.Background(), f.name, nil)
		if right {
			require.NoError(t, err)
			f.requireDone(t)
			continue
		}
		require.ErrorContains(t, err, "tiny.tar.gz.part: MD5 is "+md5Of(s.content)+"; expected "+md5Of(f.content))
		require.NoFileExists(t, f.part)
	}
}

func TestFetchRefuses(t *testing.T) {
	c := tinyCIFAR()
	nowhere := register(t, c.files)
	c.files.Downloads = []Download{{URL: "http://example.invalid/tiny.tar.gz", Size: 10}}
	plain := register(t, c.files)
	for name, want := range map[string]string{
		"folder":  "datasets: folder has no published files",
		"cifar11": `did you mean "cifar10"?`,
		nowhere:   "datasets: no address is known to fetch " + nowhere + " from",
		plain:     "http://example.invalid/tiny.tar.gz is not an https address",
	} {
		alone(t, name)
		require.ErrorContains(t, Fetch(context.Background(), name, nil), want)
	}
	cache := alone(t, plain)
	put(t, filepath.Dir(filepath.Dir(cache)), "goqat", nil) // a file where the folder should be
	require.ErrorContains(t, Fetch(context.Background(), plain, nil), "not a directory")
}

// Every registered address is one that Fetch accepts and can check.
func TestDownloadTables(t *testing.T) {
	for _, name := range []string{"cifar10", "cifar100", "fashion-mnist"} {
		files, err := filesOf(name)
		require.NoError(t, err)
		for _, d := range files.Downloads {
			u, err := url.Parse(d.URL)
			require.NoError(t, err)
			require.NoError(t, trusted(u))
			require.Equal(t, "https", u.Scheme)
			require.Positive(t, d.Size)
			f := fetcher{files: files}
			path := filepath.Join(t.TempDir(), "empty")
			require.NoError(t, os.WriteFile(path, nil, 0o600))
			var format *FormatError
			require.ErrorAs(t, f.check(d, path), &format, "a member or the archive")
		}
	}
}
