package ceremony

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"keyd.dev/keyd/internal/secret"
	"keyd.dev/keyd/keys"
)

// Person is a custodian at a desk: its way to the daemon, and what its files
// need.
type Person struct {
	Name     string
	Client   *Client
	Identity string // file with age identities, for a component that comes in a file

	lock  *lock
	place Place
}

// Desk is a terminal at which one person or several take their turns.
type Desk struct {
	Terminal *Terminal
	ID       string   // of the ceremony
	Script   [32]byte // of the reviewed text; zero: what the daemon has is shown only

	asking context.Context // ends with the ceremony, so that no question outlives it
}

// tries is how often somebody may mistype before the ceremony is given up.
const tries = 3

// Hold seats the people and has each do what the ceremony asks of it, until it
// ends; it returns how. Whatever goes wrong on this side ends the ceremony on
// the other side too.
func (d *Desk) Hold(ctx context.Context, people []*Person) (Status, error) {
	defer func() {
		for _, p := range people {
			p.lock.forget()
		}
	}()
	end, err := d.hold(ctx, people)
	if err == nil || errors.Is(err, ErrEnded) {
		return end, err
	}
	why := "the desk failed"
	if ctx.Err() != nil || errors.Is(err, ErrInterrupted) {
		why = "interrupted at the terminal"
	}
	// The context may be what ended: this has a time of its own.
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	if aborted := people[0].Client.Abort(last, d.ID, why); aborted != nil && !errors.Is(aborted, ErrUnknown) {
		err = errors.Join(err, fmt.Errorf("the daemon was not told to end the ceremony: %w", aborted))
	}
	return end, err
}

func (d *Desk) hold(ctx context.Context, people []*Person) (Status, error) {
	for i, p := range people {
		if err := d.seat(ctx, p, i == 0); err != nil {
			return Status{}, fmt.Errorf("%s: %w", p.Name, err)
		}
	}
	watch := people[0].Client
	stop := d.follow(ctx, watch)
	defer stop()
	seen := -1
	for {
		now, err := watch.Status(ctx, d.ID, seen)
		if err != nil {
			return Status{}, err
		}
		if now.Stage.Ended() {
			return now, nil
		}
		waiting := true
		for _, p := range people {
			if now.Stage == Joining || ready(now, p.Name) {
				continue
			}
			waiting = false
			if err := d.turn(ctx, p, now); err != nil {
				return now, fmt.Errorf("%s: %w", p.Name, err)
			}
		}
		if !waiting {
			seen = -1
			continue
		}
		if now.Revision != seen {
			d.await(now)
		}
		seen = now.Revision
	}
}

// follow ends the questions when the ceremony ends early. It returns once it has
// begun; stop ends it.
func (d *Desk) follow(ctx context.Context, watch *Client) (stop func()) {
	asking, end := context.WithCancelCause(ctx)
	d.asking = asking
	over := make(chan struct{})
	go func() {
		defer close(over)
		for seen := -1; asking.Err() == nil; {
			now, err := watch.Status(asking, d.ID, seen)
			switch {
			case errors.Is(err, ErrUnknown):
				end(fmt.Errorf("%w: the daemon was started again and has forgotten it", ErrEnded))
			case err != nil:
				return // whoever calls next hears of it
			case now.Stage == Done:
				return
			case now.Stage.Ended():
				end(fmt.Errorf("%w: %s: %s", ErrEnded, now.Stage, now.Why))
			}
			seen = now.Revision
		}
	}()
	return func() {
		end(nil)
		<-over
	}
}

func ready(now Status, name string) bool {
	for _, c := range now.Custodians {
		if c.Name == name {
			return c.Ready
		}
	}
	return false
}

// await says for whom everybody waits.
func (d *Desk) await(now Status) {
	var missing []string
	for _, c := range now.Custodians {
		if !c.Ready {
			missing = append(missing, c.Name)
		}
	}
	if len(missing) > 0 {
		d.Terminal.Say("waiting for %s", strings.Join(missing, ", "))
	}
}

// seat joins one person and shows the first what is going to happen.
func (d *Desk) seat(ctx context.Context, p *Person, first bool) (err error) {
	if p.lock, err = newLock(); err != nil {
		return err
	}
	if p.place, err = p.Client.join(ctx, d.ID, p.lock.public()); err != nil {
		return err
	}
	p.Name = p.place.Custodian
	if d.Script != [32]byte{} && !bytes.Equal(d.Script[:], p.place.Script) {
		return fmt.Errorf("%w: the daemon has another script (SHA-256 %x) than the one reviewed (%x)", ErrScript, p.place.Script, d.Script)
	}
	if first {
		d.Terminal.Say("\nceremony %s\n\n%s", d.ID, p.place.Explanation)
	}
	d.Terminal.Say("%s has joined", p.Name)
	return nil
}

// turn is one person's part in the present stage.
func (d *Desk) turn(ctx context.Context, p *Person, now Status) error {
	switch now.Stage {
	case Giving:
		return d.give(ctx, p, len(now.Custodians))
	case Taking:
		return d.take(ctx, p, len(now.Custodians))
	}
	return d.confirm(ctx, p, now)
}

// here waits until the person sits alone at the keyboard.
func (d *Desk) here(p *Person) error {
	d.Terminal.Say("")
	_, err := d.Terminal.Ask(d.asking, p.Name+" takes the keyboard, everybody else steps back. Press Enter: ")
	return err
}

// give reads a component, shows its check value, and sends it sealed.
func (d *Desk) give(ctx context.Context, p *Person, of int) error {
	if err := d.here(p); err != nil {
		return err
	}
	value, check, err := d.component(p, of)
	if err != nil {
		return err
	}
	defer value.Clear()
	sealed, err := sealTo(p.place.Public, value, p.at(wayIn))
	if err != nil {
		return err
	}
	value.Clear()
	if err := p.Client.give(ctx, d.ID, sealed, check.String()); err != nil {
		return err
	}
	d.Terminal.Wipe()
	d.Terminal.Say("component %d of %d accepted from %s, check value %s", p.place.Component, of, p.Name, check)
	return nil
}

func (p *Person) at(w way) place {
	return place{ceremony: p.place.Ceremony, custodian: p.place.Custodian, component: p.place.Component, way: w}
}

// component gets a component from the keyboard or the person's file, until its
// check value is the right one.
func (d *Desk) component(p *Person, of int) (secret.Bytes, keys.KCV, error) {
	a, err := keys.ParseAlgorithm(p.place.Algorithm)
	if err != nil {
		return secret.Bytes{}, keys.KCV{}, err
	}
	by, err := keys.ParseCheckMethod(p.place.Method)
	if err != nil {
		return secret.Bytes{}, keys.KCV{}, err
	}
	for range tries {
		value, err := d.entered(p, a, of)
		if errors.Is(err, keys.ErrComponent) {
			d.Terminal.Say("%v; enter it again", err)
			continue
		}
		if err != nil {
			return secret.Bytes{}, keys.KCV{}, err
		}
		check, err := keys.CheckClear(a, by, value.Reveal())
		if err != nil {
			value.Clear()
			return secret.Bytes{}, keys.KCV{}, err
		}
		good, err := d.agreed(p, check)
		if good {
			return value, check, nil
		}
		value.Clear()
		if err != nil {
			return secret.Bytes{}, keys.KCV{}, err
		}
	}
	return secret.Bytes{}, keys.KCV{}, fmt.Errorf("%w: %d tries, none right", ErrCheck, tries)
}

// entered is one try at a component.
func (d *Desk) entered(p *Person, a keys.Algorithm, of int) (value secret.Bytes, err error) {
	if p.place.File != "" && p.Identity != "" {
		value, err = LoadComponent(p.place.File, p.Identity)
		if err != nil {
			return value, err
		}
	} else {
		d.Terminal.Say("Component %d of %d: %d hexadecimal digits, in groups as you like. Nothing of it is shown.", p.place.Component, of, 2*a.KeyBytes())
		err = d.Terminal.Secret(d.asking, "Component: ", func(typed []byte) (err error) {
			value, err = keys.ParseComponent(typed)
			return err
		})
		if err != nil {
			return value, err
		}
	}
	if value.Len() != a.KeyBytes() {
		n := value.Len()
		value.Clear()
		return secret.Bytes{}, fmt.Errorf("%w: %d digits, not %d", keys.ErrComponent, 2*n, 2*a.KeyBytes())
	}
	if a.IsTDES() && !keys.OddParity(value.Reveal()) {
		d.Terminal.Say("Parity: not odd in every byte. That is no error, but a mistyped digit looks the same: compare the check value well.")
	}
	return value, nil
}

// agreed shows a check value and asks, or compares with the script's.
func (d *Desk) agreed(p *Person, check keys.KCV) (bool, error) {
	if p.place.Expected != "" {
		want, err := keys.ParseKCV(p.place.Expected)
		if err != nil {
			return false, err
		}
		if check.Equal(want) {
			d.Terminal.Say("Check value %s, as the script has it.", check)
			return true, nil
		}
		d.Terminal.Say("Check value %s; the script has %s: something was mistyped.", check, want)
		return false, nil
	}
	answer, err := d.Terminal.Ask(d.asking, "Check value "+check.String()+". Is that what your paper says? Type yes, or no to enter it again: ")
	return strings.EqualFold(answer, "yes"), err
}

// take shows a component to its custodian, or puts it into a file that only the
// custodian can open, and has the check value typed.
func (d *Desk) take(ctx context.Context, p *Person, of int) error {
	if err := d.here(p); err != nil {
		return err
	}
	parcel, err := p.Client.take(ctx, d.ID)
	if err != nil {
		return err
	}
	value, err := p.lock.open(parcel.Sealed, p.at(wayOut))
	if err != nil {
		return err
	}
	defer value.Clear()
	a, err := keys.ParseAlgorithm(parcel.Algorithm)
	if err != nil {
		return err
	}
	by, err := keys.ParseCheckMethod(parcel.Method)
	if err != nil {
		return err
	}
	check, err := keys.CheckClear(a, by, value.Reveal())
	if err != nil {
		return err
	}
	if err := d.handOver(p, parcel, value, check, of); err != nil {
		return err
	}
	value.Clear()
	typed, err := d.typed("Type the check value of your component: ", check.String())
	if err != nil {
		return err
	}
	if err := p.Client.took(ctx, d.ID, typed); err != nil {
		return err
	}
	d.Terminal.Say("%s has component %d of %d, check value %s", p.Name, p.place.Component, of, check)
	return nil
}

func (d *Desk) handOver(p *Person, parcel Parcel, value secret.Bytes, check keys.KCV, of int) error {
	if parcel.Recipient != "" {
		if err := SaveComponent(p.place.File, parcel.Recipient, value); err != nil {
			return err
		}
		d.Terminal.Say("Component %d of %d is in %s, which only %s can open.\nCheck value: %s", p.place.Component, of, p.place.File, parcel.Recipient, check)
		return nil
	}
	d.Terminal.Say("Component %d of %d. Write it on the form, then the check value; put the form into its envelope.\n", p.place.Component, of)
	d.Terminal.Show(value)
	value.Clear()
	d.Terminal.Say("\nCheck value: %s", check)
	_, err := d.Terminal.Ask(d.asking, "Press Enter when it is written; the screen is cleared: ")
	d.Terminal.Wipe()
	return err
}

// typed asks until what is typed is what is wanted.
func (d *Desk) typed(prompt, want string) (string, error) {
	for range tries {
		answer, err := d.Terminal.Ask(d.asking, prompt)
		if err != nil {
			return "", err
		}
		if strings.EqualFold(answer, want) {
			return want, nil
		}
		d.Terminal.Say("That is not it.")
	}
	return "", fmt.Errorf("%w: %d tries, none right", ErrConfirm, tries)
}

// confirm has the person type the object, below the check value of the whole.
func (d *Desk) confirm(ctx context.Context, p *Person, now Status) error {
	d.Terminal.Say("")
	if now.Check != "" {
		d.Terminal.Say("Check value of the whole key: %s", now.Check)
	}
	object, err := d.typed(p.Name+": type "+now.Object+" to say that it shall happen (Ctrl-C ends the ceremony): ", now.Object)
	if err != nil {
		return err
	}
	return p.Client.confirm(ctx, d.ID, object, now.Check)
}
