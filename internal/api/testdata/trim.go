//go:build ignore

// Trim cuts a service model of AWS Payment Cryptography down to the shapes of
// the operations named, without documentation texts.
//
//	go run trim.go MODEL.json Operation… > model-….json
package main

import (
	"encoding/json"
	"log"
	"os"
)

type model struct {
	Metadata   map[string]any            `json:"metadata"`
	Operations map[string]map[string]any `json:"operations"`
	Shapes     map[string]map[string]any `json:"shapes"`
}

func main() {
	raw, err := os.ReadFile(os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	var full model
	if err := json.Unmarshal(raw, &full); err != nil {
		log.Fatal(err)
	}
	out := model{
		Metadata:   map[string]any{"apiVersion": full.Metadata["apiVersion"], "serviceId": full.Metadata["serviceId"], "targetPrefix": full.Metadata["targetPrefix"]},
		Operations: map[string]map[string]any{},
		Shapes:     map[string]map[string]any{},
	}
	for _, name := range os.Args[2:] {
		op, ok := full.Operations[name]
		if !ok {
			log.Fatalf("no operation %s", name)
		}
		out.Operations[name] = strip(op).(map[string]any)
		out.take(full, op)
	}
	enc := json.NewEncoder(os.Stdout)
	enc.SetIndent("", " ")
	enc.SetEscapeHTML(false)
	if err := enc.Encode(out); err != nil {
		log.Fatal(err)
	}
}

// take adds every shape that v refers to, and what those refer to.
func (m *model) take(full model, v any) {
	switch v := v.(type) {
	case map[string]any:
		if name, ok := v["shape"].(string); ok && m.Shapes[name] == nil {
			m.Shapes[name] = strip(full.Shapes[name]).(map[string]any)
			m.take(full, full.Shapes[name])
		}
		for _, below := range v {
			m.take(full, below)
		}
	case []any:
		for _, below := range v {
			m.take(full, below)
		}
	}
}

// strip leaves documentation out; a member of that name in a list of members stays.
func strip(v any) any {
	switch v := v.(type) {
	case map[string]any:
		kept := make(map[string]any)
		for name, below := range v {
			if _, text := below.(string); name == "documentation" && text {
				continue
			}
			kept[name] = strip(below)
		}
		return kept
	case []any:
		for i := range v {
			v[i] = strip(v[i])
		}
	}
	return v
}
