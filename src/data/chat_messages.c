/* chat_messages.c - conversations as data sets keep them:
 *
 *   {"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]}
 *   {"conversations": [{"from": "human", "value": "..."}, {"from": "gpt", "value": "..."}]} */
#include "base/memory.h"
#include "data/chat.h"

#include <string.h>

static const struct {
    const char *list, *role, *content;
} layouts[] = {{"messages", "role", "content"}, {"conversations", "from", "value"}};

static const struct {
    const char *name;
    cab_chat_role role;
} roles[] = {{"system", CAB_CHAT_SYSTEM},       {"user", CAB_CHAT_USER},     {"human", CAB_CHAT_USER},
             {"assistant", CAB_CHAT_ASSISTANT}, {"gpt", CAB_CHAT_ASSISTANT}, {"model", CAB_CHAT_ASSISTANT}};

/* The layout and its list; -1: none. */
static int find_layout(json_object *object, json_object **list)
{
    for (int i = 0; i < 2; i++)
        if (json_object_object_get_ex(object, layouts[i].list, list) && json_object_is_type(*list, json_type_array))
            return i;
    return -1;
}

bool cab_chat_holds(json_object *object)
{
    json_object *list = NULL;
    return find_layout(object, &list) >= 0;
}

static cab_status read_message(json_object *entry, int layout, size_t index, cab_message *out)
{
    json_object *role = NULL, *content = NULL;
    if (!json_object_object_get_ex(entry, layouts[layout].role, &role) ||
        !json_object_is_type(role, json_type_string) ||
        !json_object_object_get_ex(entry, layouts[layout].content, &content) ||
        !json_object_is_type(content, json_type_string))
        return cab_fail(CAB_EFORMAT, "message %zu of \"%s\": expected an object with strings \"%s\" and \"%s\"",
                        index + 1, layouts[layout].list, layouts[layout].role, layouts[layout].content);
    out->text = json_object_get_string(content);
    out->size = (size_t)json_object_get_string_len(content);
    for (size_t i = 0; i < sizeof roles / sizeof *roles; i++)
        if (strcmp(json_object_get_string(role), roles[i].name) == 0) {
            out->role = roles[i].role;
            return CAB_OK;
        }
    return cab_fail(CAB_EUNSUPPORTED,
                    "message %zu of \"%s\": \"%s\" is \"%.40s\"; supported are system, user and assistant", index + 1,
                    layouts[layout].list, layouts[layout].role, json_object_get_string(role));
}

cab_status cab_chat_render_json(const cab_chat *chat, json_object *object, cab_conversation *out)
{
    json_object *list = NULL;
    cab_message *messages = NULL;
    const int layout = find_layout(object, &list);
    const size_t count = layout < 0 ? 0 : json_object_array_length(list);
    cab_status status = CAB_OK;
    if (count == 0)
        return cab_fail(CAB_EFORMAT, "the conversation is empty");
    CAB_TRY(CAB_NEW(&messages, count, "a conversation"));
    for (size_t i = 0; i < count; i++)
        CAB_GOTO(read_message(json_object_array_get_idx(list, i), layout, i, &messages[i]));
    status = cab_chat_render(chat, messages, count, false, out);
done:
    cab_free(messages);
    return status;
}
