package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"
)

// httpConn is a lean HTTP/1.1 client over one connection: the load generator
// shares the machine with what it measures and must cost little. It is a client
// all the same: it sends one request, and waits for the whole answer and reads it.
type httpConn struct {
	conn net.Conn
	in   *bufio.Reader
	host string
}

func dialHTTP(ctx context.Context, host string, config *tls.Config) (*httpConn, error) {
	config = config.Clone()
	config.NextProtos = []string{"http/1.1"}
	conn, err := (&tls.Dialer{Config: config}).DialContext(ctx, "tcp", host)
	if err != nil {
		return nil, err
	}
	return &httpConn{conn: conn, in: bufio.NewReaderSize(conn, 4096), host: host}, nil
}

func (c *httpConn) close() error { return c.conn.Close() }

// requestOf is the whole request of a body.
func requestOf(host, path string, body []byte) []byte {
	head := fmt.Appendf(nil, "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n", path, host, len(body))
	return append(head, body...)
}

// post sends a body and reads the answer, which must be 200.
func (c *httpConn) post(path string, body []byte) error {
	return c.send(requestOf(c.host, path, body))
}

// send sends a whole request and reads the answer, which must be 200.
func (c *httpConn) send(request []byte) error {
	if err := c.conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		return err
	}
	if _, err := c.conn.Write(request); err != nil {
		return err
	}
	status, length, err := c.head()
	if err != nil {
		return err
	}
	if status != 200 {
		answer := make([]byte, min(length, 400))
		_, _ = io.ReadFull(c.in, answer)
		return fmt.Errorf("status %d: %s", status, answer)
	}
	_, err = c.in.Discard(length)
	return err
}

// head reads the status line and the headers.
func (c *httpConn) head() (status, length int, err error) {
	line, err := c.in.ReadSlice('\n')
	if err != nil {
		return 0, 0, err
	}
	if len(line) < 12 {
		return 0, 0, fmt.Errorf("not an HTTP answer: %q", line)
	}
	if status, err = strconv.Atoi(string(line[9:12])); err != nil {
		return 0, 0, fmt.Errorf("not an HTTP answer: %q", line)
	}
	for {
		if line, err = c.in.ReadSlice('\n'); err != nil {
			return 0, 0, err
		}
		if len(line) <= 2 {
			return status, length, nil
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		if bytes.EqualFold(name, []byte("Content-Length")) {
			if length, err = strconv.Atoi(string(bytes.TrimSpace(value))); err != nil {
				return 0, 0, err
			}
		}
	}
}
