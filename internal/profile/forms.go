package profile

import (
	"fmt"
	"slices"
	"strings"

	"keyd.dev/keyd/internal/iso8583"
)

// formsOf are the forms that a field may have of which the switch reads parts, or
// which it compares with what another message said. A dialect that left their
// length open would have messages that are of its form and cannot be read.
func formsOf(de int) []string {
	switch de {
	case 14, 13:
		return []string{"n4"}
	case 3, 11, 12:
		return []string{"n6"}
	case 22, 70:
		return []string{"n3"}
	case 49: // U-33 has it as an3
		return []string{"n3", "an3"}
	case 4:
		return []string{"n12"}
	case 7:
		return []string{"n10"}
	case 25:
		return []string{"n2"}
	case 37:
		return []string{"an12"}
	case 38:
		return []string{"an6"}
	case 39:
		return []string{"an2"}
	case 41:
		return []string{"ans8"}
	case 42:
		return []string{"ans15"}
	case 90:
		return []string{"n42"}
	case 95:
		return []string{"an42"}
	}
	return nil
}

// fields checks what each field says for itself.
func (c *check) fields() {
	for _, d := range c.file.Fields {
		at := fmt.Sprintf("field.%d", d.DE)
		c.want(slices.Contains([]string{"", "left", "right"}, d.Align), at+".align", `%q is neither "left" nor "right"`, d.Align)
		forms := formsOf(d.DE)
		c.want(forms == nil || slices.Contains(forms, d.Form), at+".form", "%q is not %s, as which the switch reads the field", d.Form, strings.Join(forms, " or "))
		c.want(d.DE != 95 || iso8583.ShapeName(d.Shape) == iso8583.ShapeReplacement, at+".shape", "%q is not %q: a part that cannot be read would be taken for the whole", d.Shape, iso8583.ShapeReplacement)
	}
}
