package tomlfile

import (
	"bytes"
	"reflect"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/pelletier/go-toml/v2"
)

type document struct {
	Name  string           `toml:"name"`
	Shop  map[string]table `toml:"shop"`
	Items []table          `toml:"item"`
}

type table struct {
	Price int `toml:"price"`
}

func TestComplaints(t *testing.T) {
	tests := []struct {
		name, text string
		want       []string
	}{
		{"an unknown key, and a near one", "nam = \"x\"\n", []string{`f.toml:1: unknown key "nam"; did you mean "name"?`}},
		{"in a list of tables", "[[item]]\nprice = 1\n[[item]]\nprize = 2\n", []string{`f.toml:4: unknown key "item.prize"; did you mean "price"?`}},
		{"in a table of tables", "[shop.north]\nprise = 2\n", []string{`f.toml:2: unknown key "shop.north.prise"`}},
		{"nothing is near", "elephant = 1\n", []string{`f.toml:1: unknown key "elephant"; known here are name, shop, item`}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var d document
			dec := toml.NewDecoder(bytes.NewReader([]byte(tt.text)))
			dec.DisallowUnknownFields()
			got := Complaints("f.toml", dec.Decode(&d), reflect.TypeFor[document]())
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestLines(t *testing.T) {
	lines := LinesOf([]byte("name = \"x\"\n\n[shop.north]\nprice = 1\n[[item]]\nprice = 1\n[[item]]\nprice = 2\n"))
	for key, want := range map[string]int{"name": 1, "shop.north.price": 4, "item[0].price": 6, "item[1].price": 8, "item[1].other": 7, "nothing": 1} {
		if got := lines.Of(key); got != want {
			t.Errorf("%s is on line %d, want %d", key, got, want)
		}
	}
}
