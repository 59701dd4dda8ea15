package simulator

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
)

// apiError is a failure as EdgeOne reports it.
type apiError struct{ code, message string }

// dropped stands for a call that ends without an answer and unexecuted.
var dropped = &apiError{}

func fail(code, format string, args ...any) *apiError {
	return &apiError{code, fmt.Sprintf(format, args...)}
}

func badParameter(format string, args ...any) *apiError {
	return fail("InvalidParameter.ParameterError", format, args...)
}

// parameter describes one field of a request.
type parameter struct {
	required bool
	is       func(any) bool // the JSON type
	items    object         // of a list of objects
}

// object is what a request, or an object in it, may contain, by exact name.
type object map[string]parameter

var (
	createParams = object{
		"ZoneId":                {required: true, is: isString},
		"Targets":               {required: true, is: isList(isString)},
		"Mode":                  {is: isString},
		"EncodeUrl":             {is: isBool},
		"PrefetchMediaSegments": {is: isString},
		"Headers": {is: isList(isObject), items: object{
			"Name":  {required: true, is: isString},
			"Value": {required: true, is: isString},
		}},
	}
	describeParams = object{
		"ZoneId":    {required: true, is: isString},
		"StartTime": {is: isString},
		"EndTime":   {is: isString},
		"Offset":    {is: isInteger},
		"Limit":     {is: isInteger},
		"Filters": {is: isList(isObject), items: object{
			"Name":   {required: true, is: isString},
			"Values": {required: true, is: isList(isString)},
			"Fuzzy":  {is: isBool},
		}},
	}
	quotaParams = object{"ZoneId": {required: true, is: isString}}
)

// check refuses names that are not defined, then missing ones, then wrong
// types. A null counts as absent.
func (o object) check(path string, values map[string]any) *apiError {
	for _, name := range slices.Sorted(maps.Keys(values)) {
		if _, ok := o[name]; !ok {
			return fail("UnknownParameter", "The parameter `%s` is not recognized.", path+name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(o)) {
		p, value := o[name], values[name]
		if value == nil {
			if p.required {
				return fail("MissingParameter", "The request is missing the parameter `%s`.", path+name)
			}
			continue
		}
		if !p.is(value) {
			return badParameter("The parameter `%s` has the wrong type.", path+name)
		}
		if p.items == nil {
			continue
		}
		for i, item := range value.([]any) {
			if err := p.items.check(fmt.Sprintf("%s%s.%d.", path, name, i), item.(map[string]any)); err != nil {
				return err
			}
		}
	}
	return nil
}

func isString(v any) bool { _, ok := v.(string); return ok }
func isBool(v any) bool   { _, ok := v.(bool); return ok }
func isObject(v any) bool { _, ok := v.(map[string]any); return ok }

func isInteger(v any) bool {
	n, ok := v.(json.Number)
	if !ok {
		return false
	}
	_, err := n.Int64()
	return err == nil
}

func isList(item func(any) bool) func(any) bool {
	return func(v any) bool {
		list, ok := v.([]any)
		return ok && !slices.ContainsFunc(list, func(v any) bool { return !item(v) })
	}
}

// The getters below return a zero value for what is absent or of another type.

func (c *call) text(name string) string {
	text, _ := c.params[name].(string)
	return text
}

func (c *call) flag(name string) bool {
	flag, _ := c.params[name].(bool)
	return flag
}

func (c *call) integer(name string, byDefault int) int {
	n, ok := c.params[name].(json.Number)
	if !ok {
		return byDefault
	}
	i, _ := n.Int64()
	return int(i)
}

func (c *call) objects(name string) []map[string]any {
	list, _ := c.params[name].([]any)
	objects := make([]map[string]any, 0, len(list))
	for _, item := range list {
		if o, ok := item.(map[string]any); ok {
			objects = append(objects, o)
		}
	}
	return objects
}

// texts returns the strings of a list.
func texts(value any) []string {
	list, _ := value.([]any)
	out := make([]string, 0, len(list))
	for _, item := range list {
		if text, ok := item.(string); ok {
			out = append(out, text)
		}
	}
	return out
}
