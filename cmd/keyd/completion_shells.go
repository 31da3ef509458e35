package main

import (
	"io"
	"strings"
)

// The scripts hold the whole command line as tables: they call no program, so
// that a key press costs nothing and touches no node.

const completionHead = "# keyd: completion for %s, written by `keyd completion %s`."

// words lists the commands that can stand at a place.
func (p place) words() string {
	var all []string
	for _, c := range p.commands {
		all = append(all, c.word)
	}
	return strings.Join(all, " ")
}

// offer is what a shell function is told of a value.
func offer(kind valueKind, words []string) string {
	switch kind {
	case valueFile:
		return "@file"
	case valueFolder:
		return "@folder"
	case valueWords:
		return strings.Join(words, " ")
	}
	return "@nothing"
}

// tables writes the two functions that bash and zsh share: what may follow at a
// place, and what a flag takes.
func tables(l *lines, places []place) {
	l.say("_keyd_words() { case \"$1\" in")
	for _, p := range places {
		if len(p.commands) > 0 {
			l.say("  %s) REPLY=%s ;;", quoteShell(p.path), quoteShell(p.words()))
		}
	}
	l.say("  *) REPLY= ;;\nesac; }")
	l.say("_keyd_flags() { case \"$1\" in")
	for _, p := range places {
		var all []string
		for _, f := range p.flags {
			all = append(all, f.word)
		}
		l.say("  %s) REPLY=%s ;;", quoteShell(p.path), quoteShell(strings.Join(all, " ")))
	}
	l.say("  *) REPLY= ;;\nesac; }")
	l.say("_keyd_value() { case \"$1\" in")
	for _, p := range places {
		if len(p.commands) == 0 && p.value != valueOther {
			l.say("  %s) REPLY=%s ;;", quoteShell(p.path), quoteShell(offer(p.value, p.choices)))
		}
		for _, f := range p.flags {
			what := offer(f.value, f.words)
			if f.isSwitch {
				what = "@switch"
			}
			l.say("  %s) REPLY=%s ;;", quoteShell(p.path+" "+f.word), quoteShell(what))
			if f.short != "" {
				l.say("  %s) REPLY=%s ;;", quoteShell(p.path+" "+f.short), quoteShell(what))
			}
		}
	}
	l.say("  *) REPLY=@nothing ;;\nesac; }")
}

// writeBash writes a completion for bash 4 and later that needs nothing beside it.
func writeBash(w io.Writer, places []place) error {
	l := &lines{w: w}
	l.say(completionHead, "bash", "bash")
	tables(l, places)
	l.say("%s", `_keyd() {
  local at=keyd flag= word i REPLY cur=${COMP_WORDS[COMP_CWORD]}
  COMPREPLY=()
  # Which command the cursor is behind, and whether a flag waits for its value.
  # bash makes words of their own of "=" in --flag=value.
  for ((i = 1; i < COMP_CWORD; i++)); do
    word=${COMP_WORDS[i]}
    if [[ $word == = ]]; then continue; fi
    if [[ -n $flag ]]; then flag=; continue; fi
    if [[ $word == -* ]]; then
      _keyd_value "$at $word"
      [[ $REPLY == @switch ]] || flag=$word
      continue
    fi
    _keyd_words "$at"
    if [[ " $REPLY " == *" $word "* ]]; then at="$at $word"; fi
  done
  if [[ $cur == = ]]; then cur=; fi
  if [[ -n $flag ]]; then
    _keyd_value "$at $flag"
  elif [[ $cur == -* ]]; then
    _keyd_flags "$at"
  else
    _keyd_words "$at"
    [[ -n $REPLY ]] || _keyd_value "$at"
  fi
  case $REPLY in
    @file) compopt -o filenames 2>/dev/null; mapfile -t COMPREPLY < <(compgen -f -- "$cur") ;;
    @folder) compopt -o filenames 2>/dev/null; mapfile -t COMPREPLY < <(compgen -d -- "$cur") ;;
    @*) ;;
    *) mapfile -t COMPREPLY < <(compgen -W "$REPLY" -- "$cur") ;;
  esac
}
complete -F _keyd keyd`)
	return l.err
}

// writeZsh writes a completion for zsh's own system.
func writeZsh(w io.Writer, places []place) error {
	l := &lines{w: w}
	l.say("#compdef keyd")
	l.say(completionHead, "zsh", "zsh")
	tables(l, places)
	l.say("%s", `_keyd() {
  emulate -L zsh
  local at=keyd flag= word REPLY i cur=${words[CURRENT]}
  for ((i = 2; i < CURRENT; i++)); do
    word=${words[i]}
    if [[ -n $flag ]]; then flag=; continue; fi
    if [[ $word == -*=* ]]; then continue; fi
    if [[ $word == -* ]]; then
      _keyd_value "$at $word"
      [[ $REPLY == @switch ]] || flag=$word
      continue
    fi
    _keyd_words "$at"
    if [[ " $REPLY " == *" $word "* ]]; then at="$at $word"; fi
  done
  if [[ -n $flag ]]; then
    _keyd_value "$at $flag"
  elif [[ $cur == -*=* ]]; then
    _keyd_value "$at ${cur%%=*}"
    compset -P '*='
  elif [[ $cur == -* ]]; then
    _keyd_flags "$at"
  else
    _keyd_words "$at"
    [[ -n $REPLY ]] || _keyd_value "$at"
  fi
  case $REPLY in
    @file) _files ;;
    @folder) _files -/ ;;
    @*) ;;
    *) compadd -- ${=REPLY} ;;
  esac
}
if [[ $funcstack[1] == _keyd ]]; then _keyd "$@"; else compdef _keyd keyd; fi`)
	return l.err
}

// writeFish writes a completion for fish, one line for each word.
func writeFish(w io.Writer, places []place) error {
	l := &lines{w: w}
	l.say(completionHead, "fish", "fish")
	l.say("%s", `# True where the commands before the cursor are exactly those given.
function __keyd_at
    set -l at
    set -l takes 0
    for word in (commandline -opc)[2..-1]
        if test $takes = 1
            set takes 0
        else if string match -q -- '-*=*' $word
        else if string match -q -- '-*' $word
            if not contains -- "$at $word" $__keyd_switches
                set takes 1
            end
        else if contains -- (string trim -- "$at $word") $__keyd_commands
            set at (string trim -- "$at $word")
        end
    end
    test "$at" = "$argv"
end`)
	var commands, switches []string
	for _, p := range places[1:] {
		commands = append(commands, quoteFish(fishPath(p)))
	}
	for _, p := range places {
		for _, f := range p.flags {
			if !f.isSwitch {
				continue
			}
			switches = append(switches, quoteFish(fishPath(p)+" "+f.word))
			if f.short != "" {
				switches = append(switches, quoteFish(fishPath(p)+" "+f.short))
			}
		}
	}
	l.say("set -g __keyd_commands %s", strings.Join(commands, " "))
	l.say("set -g __keyd_switches %s", strings.Join(switches, " "))
	l.say("complete -c keyd -f")
	for _, p := range places {
		at := quoteFish("__keyd_at " + fishPath(p))
		for _, c := range p.commands {
			l.say("complete -c keyd -n %s -a %s -d %s", at, quoteFish(c.word), quoteFish(oneLine(c.help)))
		}
		if len(p.commands) == 0 && p.value != valueOther {
			l.say("complete -c keyd -n %s%s", at, fishValue(p.value, p.choices))
		}
		for _, f := range p.flags {
			line := "complete -c keyd -n " + at + " -l " + strings.TrimPrefix(f.word, "--")
			if f.short != "" {
				line += " -s " + strings.TrimPrefix(f.short, "-")
			}
			if !f.isSwitch {
				line += " -r" + fishValue(f.value, f.words)
			}
			l.say("%s -d %s", line, quoteFish(oneLine(f.help)))
		}
	}
	return l.err
}

func fishPath(p place) string { return strings.TrimSpace(strings.TrimPrefix(p.path, programName)) }

// fishValue says what fish offers for a value: -F files, -f nothing but what is
// listed.
func fishValue(kind valueKind, words []string) string {
	switch kind {
	case valueFile:
		return " -F"
	case valueFolder:
		return " -f -a '(__fish_complete_directories)'"
	case valueWords:
		return " -f -a " + quoteFish(strings.Join(words, " "))
	}
	return " -f"
}

// quoteFish makes one word of text for fish.
func quoteFish(text string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(text) + "'"
}
