/* list.h -- lists whose links are inside their members, as the kernel's. Thread: any. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

struct list_node {
	struct list_node *next, *prev;
};

/* The struct that holds this member. */
#define CONTAINER_OF(pointer, type, member) \
	((type *)(void *)((char *)(pointer)-offsetof(type, member)))

/* Goes through list; the body may remove node, and no other. */
/* NOLINTBEGIN(bugprone-macro-parentheses): node is declared here, a name cannot stand in parentheses */
#define LIST_FOREACH(node, list)                                                               \
	for (struct list_node *node = (list)->next, *node##_next = node->next; node != (list); \
	     node = node##_next, node##_next = node->next)
/* NOLINTEND(bugprone-macro-parentheses) */

static inline void list_init(struct list_node *list)
{
	list->next = list->prev = list;
}

static inline bool list_empty(const struct list_node *list)
{
	return list->next == list;
}

static inline void list_append(struct list_node *list, struct list_node *node)
{
	node->prev = list->prev;
	node->next = list;
	list->prev->next = node;
	list->prev = node;
}

/* The node is a list of its own afterwards, so it may be removed again. */
static inline void list_remove(struct list_node *node)
{
	node->prev->next = node->next;
	node->next->prev = node->prev;
	list_init(node);
}
