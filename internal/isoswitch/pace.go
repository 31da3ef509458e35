package isoswitch

import (
	"sync"
	"time"
)

// pace holds terminals to a least time between two of their sign-ins, and client
// certificates to a number in a minute. An 0800 carries no MAC, and each that is
// honoured costs the token three keys and makes those of before worthless (U-51):
// whoever has one certificate could send it for every TID. It is safe for
// concurrent use. A restart forgets it.
type pace struct {
	mu      sync.Mutex
	last    map[string]signedIn // by TID
	clients map[string]failures // by certificate, in minutes that begin with the first
}

// signedIn is the last sign-in of a terminal.
type signedIn struct {
	at    time.Time
	used  bool // a message under its keys had a good MAC
	again bool // a further sign-in was let through, for nobody had used them
}

// take reports whether a terminal may sign in now, and if so notes that it does.
// Within the least time one more goes through while nobody has used the keys of
// the last: that may have been another's, and the terminal is without keys.
func (p *pace) take(tid string, now time.Time, least time.Duration) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	last, ok := p.last[tid]
	early := ok && now.Sub(last.at) < least
	if early && (last.used || last.again) {
		return false
	}
	if p.last == nil {
		p.last = map[string]signedIn{}
	}
	switch {
	case early: // the time still runs from the first
		p.last[tid] = signedIn{at: last.at, again: true}
	case least > 0:
		p.last[tid] = signedIn{at: now}
	}
	return true
}

// share reports whether terminals may sign in by a certificate once more in this
// minute, of most times, and if so notes that one does.
func (p *pace) share(cert string, now time.Time, most int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	c, ok := p.clients[cert]
	if !ok || now.Sub(c.since) >= time.Minute {
		c = failures{since: now}
	}
	if c.n >= most {
		return false
	}
	if p.clients == nil {
		p.clients = map[string]failures{}
	}
	c.n++
	p.clients[cert] = c
	return true
}

// used notes that a terminal has its keys: a message under them had a good MAC.
func (p *pace) used(tid string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if last, ok := p.last[tid]; ok && !last.used {
		last.used = true
		p.last[tid] = last
	}
}

// giveBack forgets a sign-in that came to nothing.
func (p *pace) giveBack(tid string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.last, tid)
}
