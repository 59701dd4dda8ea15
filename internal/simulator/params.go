package simulator

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
)

// apiError is a failure as EdgeOne reports it.
type apiError struct{ code, message string }

// dropped marks a call that ends without an answer and is not executed.
var dropped = &apiError{}

// fail returns a failure with a code and a formatted message.
func fail(code, format string, args ...any) *apiError {
	return &apiError{code, fmt.Sprintf(format, args...)}
}

// badParameter returns the failure of a call with an invalid parameter.
func badParameter(format string, args ...any) *apiError {
	return fail("InvalidParameter.ParameterError", format, args...)
}

// parameter describes one field of a request.
type parameter struct {
	required bool
	is       func(any) bool // the JSON type
	items    object         // the fields of an object, or of each element of a list of objects
}

// object describes the fields of a request, or of an object in it, by exact name.
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
	purgeParams = object{
		"ZoneId":    {required: true, is: isString},
		"Type":      {required: true, is: isString},
		"Method":    {is: isString},
		"Targets":   {is: isList(isString)},
		"EncodeUrl": {is: isBool},
		"CacheTag":  {is: isObject, items: object{"Domains": {is: isList(isString)}}},
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

// check refuses unknown names first, then missing ones, then wrong types. It treats null
// as absent. path is the prefix of the names in messages.
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
		if err := p.items.checkItems(path+name+".", value); err != nil {
			return err
		}
	}
	return nil
}

// checkItems checks an object, or each object of a list.
func (o object) checkItems(path string, value any) *apiError {
	if single, ok := value.(map[string]any); ok {
		return o.check(path, single)
	}
	for i, item := range value.([]any) {
		if err := o.check(fmt.Sprintf("%s%d.", path, i), item.(map[string]any)); err != nil {
			return err
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

// The getters below return a zero value, or the default, if the parameter is absent or has
// another type.

func (c *call) text(name string) string {
	text, _ := c.params[name].(string)
	return text
}

func (c *call) encodesURL() bool {
	encode, _ := c.params["EncodeUrl"].(bool)
	return encode
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
