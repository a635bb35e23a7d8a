package omdp

import "io"

// copyFrom writes what from yields, as it comes, in buffers of size bytes, until
// io.EOF. stopped says why nothing may be written any more, or nil.
func copyFrom(from io.Reader, size int, write func(p []byte) (int, error), stopped func() error) (total int64, err error) {
	b := getBuffer()
	defer b.put()
	if cap(b.b) < size {
		b.b = make([]byte, 0, size)
	}
	buf := b.b[:size]
	for {
		n, err := from.Read(buf)
		if n > 0 {
			k, werr := write(buf[:n])
			total += int64(k)
			if werr != nil {
				return total, werr
			}
		}
		switch {
		case err == io.EOF:
			return total, nil
		case err != nil:
			return total, err
		}
		if err := stopped(); err != nil {
			return total, err
		}
	}
}

// copyTo writes to w what fill puts in rest, until fill fails: io.EOF is the good
// end. broken tells that it was w that failed.
func copyTo(w io.Writer, rest *[]byte, fill func() error) (written int64, broken bool, err error) {
	for {
		if err := fill(); err != nil {
			if err == io.EOF {
				err = nil
			}
			return written, false, err
		}
		n, err := w.Write(*rest)
		if n < len(*rest) && err == nil {
			err = io.ErrShortWrite
		}
		*rest = (*rest)[min(max(n, 0), len(*rest)):]
		written += int64(n)
		if err != nil {
			return written, true, err
		}
	}
}
