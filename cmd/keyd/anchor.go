package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"keyd.dev/keyd/audit"
)

// anchorConfig is one place where checkpoints of the audit log are kept as well.
type anchorConfig struct {
	Name     string `toml:"name" comment:"Name in records and alarms, [a-z0-9-]."`
	Dir      string `toml:"dir" comment:"Folder that keyd may write, on another file system than the log and best of another administrator; it must be there."`
	Required bool   `toml:"required,omitempty" comment:"Refuse to start where it cannot be read, or has no checkpoint of a log that has them: a new anchor begins without; default false."`
}

// anchors refuses one that goes wherever the log goes.
func (k *configCheck) anchors(all []anchorConfig, log string) {
	names, dirs := make(map[string]bool), make(map[string]bool)
	for i := range all {
		a, at := &all[i], fmt.Sprintf("audit_anchor[%d]", i)
		dir := filepath.Clean(a.Dir)
		k.want(sinkName.MatchString(a.Name), at+".name", "%q is not 1 to 32 of a-z, 0-9 and -", a.Name)
		k.want(!names[a.Name], at+".name", "%q stands twice", a.Name)
		k.want(a.Dir != "", at+".dir", "needs the folder of the checkpoints, on another file system than %s", log)
		k.want(a.Dir == "" || !dirs[dir], at+".dir", "%q is the folder of another anchor", a.Dir)
		k.want(a.Dir == "" || !within(dir, log) && !within(log, dir), at+".dir", "%q and the folder of the log must not be in each other: who puts an old copy of one back puts back both", a.Dir)
		names[a.Name], dirs[dir] = true, true
	}
}

// within says whether a path is a folder or in it.
func within(path, folder string) bool {
	rel, err := filepath.Rel(folder, path)
	return err == nil && rel != ".." && !strings.HasPrefix(rel, "../")
}

// anchors are those of the configuration, as the log has them.
func (c *config) anchors() ([]audit.AnchorConfig, error) {
	var all []audit.AnchorConfig
	for i := range c.Anchor {
		a, err := audit.NewDirAnchor(c.Anchor[i].Name, c.Anchor[i].Dir)
		if err != nil {
			return nil, err
		}
		all = append(all, audit.AnchorConfig{Anchor: a, Required: c.Anchor[i].Required})
	}
	return all, nil
}

// adviseAnchor says what is to be done where an anchor hinders the start.
func adviseAnchor(cfg *configFile, err error) error {
	dir, folders := cfg.Audit.Dir, make([]string, 0, len(cfg.Anchor))
	for i := range cfg.Anchor {
		folders = append(folders, cfg.Anchor[i].Dir)
	}
	kept := strings.Join(folders, ", ")
	err = fmt.Errorf("opening the audit log: %w", err)
	if errors.Is(err, audit.ErrRollback) {
		return advise(err, "%s is not what it was: keep it and %s as evidence, and call the security officer. Put the newest copy of the log there; "+
			"`keyd audit verify --dir COPY --since-checkpoint FILE` with each file of the anchor says which is. Where none is left, two administrators begin a new generation: `keyd audit fork`", dir, kept)
	}
	return advise(err, "nothing is wrong with %s as far as it was checked. Mount or mend the folder of the anchor (%s). "+
		"One that is new gets its first checkpoint from a start with required = false in %s; a file in it that is no checkpoint of this log is evidence: keep it", dir, kept, cfg.path)
}

// reached says whether a folder is there; one that hangs, as that of a server
// which is away does, is not.
func reached(dir string) bool {
	there := make(chan bool, 1)
	go func() {
		_, err := os.Stat(dir)
		there <- err == nil
	}()
	select {
	case ok := <-there:
		return ok
	case <-time.After(10 * time.Second):
		return false
	}
}

// anchors looks at the folders that are kept beside the log.
func (e *examination) anchors(cfg *configFile) {
	for i := range cfg.Anchor {
		a := &cfg.Anchor[i]
		name, bad := "anchor "+a.Name, statusWarn
		if a.Required {
			bad = statusFail
		}
		probe, err := os.CreateTemp(a.Dir, ".doctor-*")
		if err != nil {
			e.bad(bad, name, err.Error(), "the folder must be there, mounted, and the user who runs keyd must be able to write in it")
			continue
		}
		probe.Close()
		os.Remove(probe.Name())
		if sameFileSystem(a.Dir, cfg.Audit.Dir) {
			e.bad(statusWarn, name, a.Dir+" is on the file system of the log", "put it on another one: an old copy of this one brings both back")
			continue
		}
		e.ok(name, "%s can be written", a.Dir)
	}
}

func sameFileSystem(a, b string) bool {
	var x, y syscall.Stat_t
	return syscall.Stat(a, &x) == nil && syscall.Stat(b, &y) == nil && x.Dev == y.Dev
}
