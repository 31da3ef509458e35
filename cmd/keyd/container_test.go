package main

import (
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
	"go.yaml.in/yaml/v3"
)

// Images are not built here: what can be told without building is held.

var (
	rootDir      = filepath.Join("..", "..")
	containerDir = filepath.Join(rootDir, "deploy", "container")
)

// instruction is one line of a Dockerfile, its continuations joined.
type instruction struct{ name, rest string }

func dockerfile(t *testing.T) []instruction {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(containerDir, "Dockerfile"))
	if err != nil {
		t.Fatal(err)
	}
	var all []instruction
	joined := regexp.MustCompile(`\\\n\s*`).ReplaceAllString(string(text), " ")
	for line := range strings.Lines(joined) {
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		name, rest, _ := strings.Cut(line, " ")
		all = append(all, instruction{name, strings.TrimSpace(rest)})
	}
	return all
}

// isCommand fails unless argv, without the program, is a command of keyd.
func isCommand(t *testing.T, where string, argv []string) {
	t.Helper()
	helped := false
	parser, err := kong.New(&cli{}, kong.Name(programName), kong.Exit(func(int) { helped = true }))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parser.Parse(argv); err != nil || helped {
		t.Errorf("%s: `keyd %s` is no command: %v", where, strings.Join(argv, " "), err)
	}
}

func TestDockerfile(t *testing.T) {
	last := make(map[string]string) // of the last stage
	stages := 0
	for _, in := range dockerfile(t) {
		switch in.name {
		case "FROM":
			stages++
			clear(last)
		case "COPY":
			copied(t, in.rest, last)
		case "ADD":
			t.Error("ADD fetches and unpacks; COPY does not")
		case "ARG", "RUN", "WORKDIR", "ENV", "EXPOSE", "USER", "STOPSIGNAL", "HEALTHCHECK", "ENTRYPOINT", "CMD":
		default:
			t.Errorf("an instruction that this test does not know: %s", in.name)
		}
		last[in.name] = in.rest
	}
	if stages != 2 {
		t.Errorf("%d stages, want 2: the tools stay out of the image", stages)
	}
	if !regexp.MustCompile(`^[1-9][0-9]{3,}:[1-9][0-9]{3,}$`).MatchString(last["USER"]) {
		t.Errorf("USER %q: want numbers, so that Kubernetes can tell that it is not root", last["USER"])
	}
	var entry, command, health []string
	for name, into := range map[string]*[]string{"ENTRYPOINT": &entry, "CMD": &command} {
		if err := json.Unmarshal([]byte(last[name]), into); err != nil {
			t.Fatalf("%s %s: %v", name, last[name], err)
		}
	}
	_, check, _ := strings.Cut(last["HEALTHCHECK"], "CMD ")
	if err := json.Unmarshal([]byte(check), &health); err != nil || len(health) < 2 {
		t.Fatalf("HEALTHCHECK %s: %v", last["HEALTHCHECK"], err)
	}
	if !slices.Equal(entry, []string{"/usr/bin/keyd"}) || health[0] != entry[0] {
		t.Errorf("ENTRYPOINT %q, HEALTHCHECK %q", entry, health)
	}
	isCommand(t, "CMD", command)
	isCommand(t, "HEALTHCHECK", health[1:])
}

// copied checks that what a COPY takes is there; from another stage, that make
// puts it there.
func copied(t *testing.T, rest string, last map[string]string) {
	t.Helper()
	words := strings.Fields(rest)
	words = slices.DeleteFunc(words, func(w string) bool { return strings.HasPrefix(w, "--chmod=") })
	if from, ok := strings.CutPrefix(words[0], "--from="); ok {
		makefile, err := os.ReadFile(filepath.Join(rootDir, "Makefile"))
		if err != nil {
			t.Fatal(err)
		}
		if from != "build" || words[1] != "/src/bin/keyd" || !strings.Contains(string(makefile), "BIN := bin/keyd") {
			t.Errorf("COPY %s: `make build` puts nothing there", rest)
		}
		return
	}
	for _, source := range words[:len(words)-1] {
		if _, err := os.Stat(filepath.Join(rootDir, source)); err != nil {
			t.Errorf("COPY %s: %v", rest, err)
		}
	}
}

// composeFile is what this test knows of a compose file; a key that it does not
// know is an error.
type composeFile struct {
	Name     string                    `yaml:"name"`
	Shared   composeService            `yaml:"x-shut"`
	Services map[string]composeService `yaml:"services"`
	Secrets  map[string]struct {
		File string `yaml:"file"`
	} `yaml:"secrets"`
	Volumes map[string]*struct{} `yaml:"volumes"`
}

type composeService struct {
	Build *struct {
		Context    string            `yaml:"context"`
		Dockerfile string            `yaml:"dockerfile"`
		Args       map[string]string `yaml:"args"`
	} `yaml:"build"`
	Image       string         `yaml:"image"`
	Command     []string       `yaml:"command"`
	Ports       []string       `yaml:"ports"`
	Volumes     []string       `yaml:"volumes"`
	Secrets     []string       `yaml:"secrets"`
	Restart     string         `yaml:"restart"`
	Grace       string         `yaml:"stop_grace_period"`
	User        string         `yaml:"user"`
	ReadOnly    bool           `yaml:"read_only"`
	Tmpfs       []string       `yaml:"tmpfs"`
	CapDrop     []string       `yaml:"cap_drop"`
	SecurityOpt []string       `yaml:"security_opt"`
	Ulimits     map[string]int `yaml:"ulimits"`
	Pids        int            `yaml:"pids_limit"`
	Network     string         `yaml:"network_mode"`
	DependsOn   map[string]struct {
		Condition string `yaml:"condition"`
	} `yaml:"depends_on"`
	Healthcheck *struct {
		Disable     bool     `yaml:"disable"`
		Test        []string `yaml:"test"`
		Interval    string   `yaml:"interval"`
		Timeout     string   `yaml:"timeout"`
		StartPeriod string   `yaml:"start_period"`
	} `yaml:"healthcheck"`
}

func TestCompose(t *testing.T) {
	user := ""
	args := make(map[string]bool)
	for _, in := range dockerfile(t) {
		if in.name == "USER" {
			user = in.rest
		}
		if in.name == "ARG" {
			name, _, _ := strings.Cut(in.rest, "=")
			args[name] = true
		}
	}
	files, err := fs.Glob(os.DirFS(containerDir), "compose*.yaml")
	if err != nil || len(files) != 2 {
		t.Fatalf("%q: %v", files, err)
	}
	for _, file := range files {
		t.Run(file, func(t *testing.T) {
			f, err := os.Open(filepath.Join(containerDir, file))
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			var c composeFile
			dec := yaml.NewDecoder(f)
			dec.KnownFields(true)
			if err := dec.Decode(&c); err != nil {
				t.Fatal(err)
			}
			if len(c.Services) == 0 {
				t.Fatal("no service")
			}
			for name, s := range c.Services {
				checkService(t, name, s, user)
				if s.Build != nil {
					if _, err := os.Stat(filepath.Join(containerDir, s.Build.Context, s.Build.Dockerfile)); err != nil {
						t.Error(err)
					}
					for arg := range s.Build.Args {
						if !args[arg] {
							t.Errorf("%s: the Dockerfile has no ARG %s", name, arg)
						}
					}
				}
				for _, secret := range s.Secrets {
					if c.Secrets[secret].File == "" {
						t.Errorf("%s: no secret %s", name, secret)
					}
				}
				for _, v := range s.Volumes {
					source, _, _ := strings.Cut(v, ":")
					if _, ok := c.Volumes[source]; !ok && !strings.HasPrefix(source, "./") {
						t.Errorf("%s: no volume %s", name, source)
					}
				}
				for other := range s.DependsOn {
					if _, ok := c.Services[other]; !ok {
						t.Errorf("%s: no service %s", name, other)
					}
				}
			}
		})
	}
}

// checkService holds what every service of keyd must say (C-13).
func checkService(t *testing.T, name string, s composeService, user string) {
	t.Helper()
	for what, ok := range map[string]bool{
		"user: " + user:                  s.User == user,
		"read_only: true":                s.ReadOnly,
		"cap_drop: [ALL]":                slices.Equal(s.CapDrop, []string{"ALL"}),
		"no-new-privileges":              slices.Contains(s.SecurityOpt, "no-new-privileges:true"),
		"no other security_opt":          len(s.SecurityOpt) == 1,
		"ulimits core 0":                 s.Ulimits["core"] == 0 && len(s.Ulimits) >= 3,
		"ulimits memlock -1":             s.Ulimits["memlock"] == -1,
		"pids_limit":                     s.Pids > 0,
		"no plain :latest":               s.Image == "keyd:local",
		"no host network":                s.Network == "" || strings.HasPrefix(s.Network, "service:"),
		"the configuration is read-only": !slices.Contains(s.Volumes, "./config:/etc/keyd"),
	} {
		if !ok {
			t.Errorf("C-13 %s: want %s", name, what)
		}
	}
	isCommand(t, name, s.Command)
	if h := s.Healthcheck; h != nil && !h.Disable {
		if len(h.Test) < 3 || h.Test[0] != "CMD" || h.Test[1] != "/usr/bin/keyd" {
			t.Fatalf("%s: healthcheck %q", name, h.Test)
		}
		isCommand(t, name+" healthcheck", h.Test[2:])
	}
}
