// Package account knows the EdgeOneAccounts: which tasks an account allows, and what is used
// of its budgets.
//
//   - store: the accounts and the labels of namespaces, as the watch shows them
//   - rules: what an account allows
//   - hosts: which hosts a pattern stands for
//   - usage: how many URLs EdgeOne accepted today, by account, namespace and zone
//   - budgets: what the budgets leave
//   - today: what the status of an account says on a later day
//   - answers: what EdgeOne and STS say about the credentials of an account
//
// The package reads and writes nothing in the API server, makes no calls to EdgeOne, and
// knows no queue. It decides from what others report to it.
package account
