/* A libnvidia-ml.so.1 for tests: the real pynvml loads it, and it answers from a text file.
 *
 * The file is named by STACKCONF_NVML_STUB, one statement a line:
 *   driver TEXT | cuda NUMBER
 *   fail FUNCTION CODE      that function returns CODE (before the first `device`: for every card)
 *   sleep FUNCTION SECONDS  that function sleeps first
 *   crash FUNCTION          that function writes to address 0
 *   device                  what follows describes the next card
 *     name TEXT | uuid TEXT | pci TEXT | id HEX | memory TOTAL FREE | capability MAJOR MINOR
 *     cores N | mig N | addressing N | c2c N | node N | affinity HEX | own_node N
 *     links N               so many NVLink links are up (else 3: not supported)
 *   between A B PATH READ NVLINK   of two cards: their common ancestor (0, 10, .. 50) and the P2P
 *                         status of reading and of NVLink (0: possible); else 50, 0 and 5
 *     lost N                after N calls on this card, each returns 15 (GPU is lost)
 *     instance UUID BYTES MEBIBYTES MULTIPROCESSORS SLICES COMPUTE_SLICES
 * A card without `memory` answers 3 (not supported), one without `mig` too, and so on.
 * With -DOLD_DRIVER the younger functions are missing.
 *
 * Signatures and structures follow nvml.h; made for these tests, not a record of a real driver.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MOST 16
#define NOT_SUPPORTED 3

struct rule { char function[64]; int code; int seconds; int crash; };
struct card {
    int index, calls, lost, has_memory, has_capability, cores, mig, addressing, c2c, node, links, own_node;
    char name[96], uuid[96], pci[32];
    unsigned id;
    unsigned long long total, free, affinity;
    int major, minor, rules, instances;
    struct rule rule[MOST];
    struct instance {
        struct card *of;
        char uuid[96];
        unsigned long long bytes, mebibytes;
        unsigned multiprocessors, slices, compute;
    } instance[MOST];
};

static struct card cards[MOST];
static struct { int path, read, nvlink, told; } between[MOST][MOST];
static int count = -1, rules, cuda = 12040;
static char driver[96] = "550.54.15";
static struct rule rule[MOST];

static void load(void) {
    char line[512], first[64], text[256];
    FILE *file = fopen(getenv("STACKCONF_NVML_STUB"), "r");
    count = 0;
    while (file && fgets(line, sizeof line, file)) {
        struct card *card = count ? &cards[count - 1] : NULL;
        struct rule *next = card ? &card->rule[card->rules] : &rule[rules];
        text[0] = 0;
        if (sscanf(line, " %63s %255[^\n]", first, text) < 1) continue;
        if (!strcmp(first, "device")) {
            cards[count].index = count;
            cards[count].mig = cards[count].addressing = cards[count].c2c = cards[count].node = -1;
            cards[count].links = cards[count].own_node = -1;
            cards[count].lost = -1;
            count++;
        } else if (!strcmp(first, "driver")) snprintf(driver, sizeof driver, "%s", text);
        else if (!strcmp(first, "cuda")) cuda = atoi(text);
        else if (!strcmp(first, "fail") || !strcmp(first, "sleep") || !strcmp(first, "crash")) {
            int number = 0;
            sscanf(text, "%63s %d", next->function, &number);
            if (*first == 'f') next->code = number;
            if (*first == 's') next->seconds = number;
            if (*first == 'c') next->crash = 1;
            if (card) card->rules++; else rules++;
        } else if (!strcmp(first, "between")) {
            int a, b, path, read, nvlink;
            if (sscanf(text, "%d %d %d %d %d", &a, &b, &path, &read, &nvlink) != 5) continue;
            for (int turn = 0; turn < 2; turn++) {
                int one = turn ? b : a, other = turn ? a : b;
                between[one][other].path = path; between[one][other].read = read;
                between[one][other].nvlink = nvlink; between[one][other].told = 1;
            }
        } else if (!card) continue;
        else if (!strcmp(first, "name")) snprintf(card->name, sizeof card->name, "%s", text);
        else if (!strcmp(first, "uuid")) snprintf(card->uuid, sizeof card->uuid, "%s", text);
        else if (!strcmp(first, "pci")) snprintf(card->pci, sizeof card->pci, "%s", text);
        else if (!strcmp(first, "id")) card->id = strtoul(text, NULL, 16);
        else if (!strcmp(first, "memory")) card->has_memory = sscanf(text, "%llu %llu", &card->total, &card->free);
        else if (!strcmp(first, "capability")) card->has_capability = sscanf(text, "%d %d", &card->major, &card->minor);
        else if (!strcmp(first, "cores")) card->cores = atoi(text);
        else if (!strcmp(first, "mig")) card->mig = atoi(text);
        else if (!strcmp(first, "addressing")) card->addressing = atoi(text);
        else if (!strcmp(first, "c2c")) card->c2c = atoi(text);
        else if (!strcmp(first, "node")) card->node = atoi(text);
        else if (!strcmp(first, "links")) card->links = atoi(text);
        else if (!strcmp(first, "own_node")) card->own_node = atoi(text);
        else if (!strcmp(first, "affinity")) card->affinity = strtoull(text, NULL, 16);
        else if (!strcmp(first, "lost")) card->lost = atoi(text);
        else if (!strcmp(first, "instance")) {
            struct instance *slice = &card->instance[card->instances++];
            slice->of = card;
            sscanf(text, "%95s %llu %llu %u %u %u", slice->uuid, &slice->bytes, &slice->mebibytes,
                   &slice->multiprocessors, &slice->slices, &slice->compute);
        }
    }
    if (file) fclose(file);
}

static int obey(struct rule *all, int number, const char *function) {
    for (int i = 0; i < number; i++) {
        if (strcmp(all[i].function, function)) continue;
        if (all[i].crash) *(volatile int *)0 = 1;
        if (all[i].seconds) sleep(all[i].seconds);
        if (all[i].code) return all[i].code;
    }
    return 0;
}

static int enter(struct card *card, const char *function) {
    if (count < 0) load();
    int code = obey(rule, rules, function);
    if (code || !card) return code;
    if (card->lost >= 0 && card->calls++ >= card->lost) return 15;
    return obey(card->rule, card->rules, function);
}

/* A handle is a card or one of its instances. */
static struct card *card_of(void *handle) {
    for (int i = 0; i < count; i++) if (handle == &cards[i]) return &cards[i];
    return ((struct instance *)handle)->of;
}
static struct instance *instance_of(void *handle) {
    return handle == (void *)card_of(handle) ? NULL : handle;
}

#define ENTER(card) do { int code = enter(card, __func__); if (code) return code; } while (0)

int nvmlInitWithFlags(unsigned flags) { (void)flags; ENTER(NULL); return 0; }
int nvmlSystemGetDriverVersion(char *out, unsigned size) { ENTER(NULL); snprintf(out, size, "%s", driver); return 0; }
int nvmlSystemGetCudaDriverVersion_v2(int *out) { ENTER(NULL); *out = cuda; return 0; }
int nvmlDeviceGetCount_v2(unsigned *out) { ENTER(NULL); *out = count; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **out) {
    if (count < 0) load();
    if ((int)index >= count) return 2;
    ENTER(&cards[index]);
    *out = &cards[index];
    return 0;
}
int nvmlDeviceGetName(void *handle, char *out, unsigned size) {
    ENTER(card_of(handle));
    snprintf(out, size, "%s", card_of(handle)->name);
    return 0;
}
int nvmlDeviceGetUUID(void *handle, char *out, unsigned size) {
    ENTER(card_of(handle));
    snprintf(out, size, "%s", instance_of(handle) ? instance_of(handle)->uuid : card_of(handle)->uuid);
    return 0;
}
struct pci { char old[16]; unsigned domain, bus, device, id, subsystem; char bus_id[32]; };
int nvmlDeviceGetPciInfo_v3(void *handle, struct pci *out) {
    ENTER(card_of(handle));
    memset(out, 0, sizeof *out);
    snprintf(out->bus_id, sizeof out->bus_id, "%s", card_of(handle)->pci);
    out->id = card_of(handle)->id;
    return 0;
}
struct memory { unsigned long long total, free, used; };
int nvmlDeviceGetMemoryInfo(void *handle, struct memory *out) {
    struct card *card = card_of(handle);
    struct instance *slice = instance_of(handle);
    ENTER(card);
    if (slice) { out->total = slice->bytes; out->free = slice->bytes; out->used = 0; return 0; }
    if (!card->has_memory) return NOT_SUPPORTED;
    out->total = card->total; out->free = card->free; out->used = card->total - card->free;
    return 0;
}
int nvmlDeviceGetCudaComputeCapability(void *handle, int *major, int *minor) {
    struct card *card = card_of(handle);
    ENTER(card);
    if (!card->has_capability) return NOT_SUPPORTED;
    *major = card->major; *minor = card->minor;
    return 0;
}
int nvmlDeviceGetCpuAffinity(void *handle, unsigned size, unsigned long *cpus) {
    ENTER(card_of(handle));
    if (!card_of(handle)->affinity) return NOT_SUPPORTED;
    memset(cpus, 0, size * sizeof *cpus);
    cpus[0] = card_of(handle)->affinity;
    return 0;
}
int nvmlDeviceGetTopologyCommonAncestor(void *first, void *second, int *out) {
    ENTER(card_of(first));
    int a = card_of(first)->index, b = card_of(second)->index;
    *out = between[a][b].told ? between[a][b].path : 50;
    return 0;
}
int nvmlDeviceGetP2PStatus(void *first, void *second, int what, int *out) {
    ENTER(card_of(first));
    int a = card_of(first)->index, b = card_of(second)->index;
    *out = what == 2 ? 5 : 0;
    if (between[a][b].told) *out = what == 2 ? between[a][b].nvlink : between[a][b].read;
    return 0;
}
int nvmlDeviceGetNvLinkState(void *handle, unsigned link, unsigned *out) {
    ENTER(card_of(handle));
    if (card_of(handle)->links < 0) return NOT_SUPPORTED;
    if (link >= 18) return 2;
    *out = (int)link < card_of(handle)->links;
    return 0;
}
#ifndef OLD_DRIVER
int nvmlDeviceGetNumaNodeId(void *handle, int *out) {
    ENTER(card_of(handle));
    if (card_of(handle)->own_node < 0) return NOT_SUPPORTED;
    *out = card_of(handle)->own_node;
    return 0;
}
struct memory_v2 { unsigned version; unsigned long long total, reserved, free, used; };
int nvmlDeviceGetMemoryInfo_v2(void *handle, struct memory_v2 *out) {
    struct memory plain;
    ENTER(card_of(handle));
    if (out->version != 0x02000028) return 25;
    int code = nvmlDeviceGetMemoryInfo(handle, &plain);
    if (code) return code;
    out->total = plain.total; out->free = plain.free; out->used = plain.used; out->reserved = 0;
    return 0;
}
int nvmlDeviceGetNumGpuCores(void *handle, unsigned *out) {
    ENTER(card_of(handle));
    *out = card_of(handle)->cores;
    return *out ? 0 : NOT_SUPPORTED;
}
int nvmlDeviceGetMigMode(void *handle, unsigned *now, unsigned *next) {
    ENTER(card_of(handle));
    if (card_of(handle)->mig < 0) return NOT_SUPPORTED;
    *now = *next = card_of(handle)->mig;
    return 0;
}
int nvmlDeviceGetMaxMigDeviceCount(void *handle, unsigned *out) { ENTER(card_of(handle)); *out = 7; return 0; }
int nvmlDeviceGetMigDeviceHandleByIndex(void *handle, unsigned index, void **out) {
    struct card *card = card_of(handle);
    ENTER(card);
    if ((int)index >= card->instances) return 6;
    *out = &card->instance[index];
    return 0;
}
struct attributes { unsigned multiprocessors, other[5], slices, compute; unsigned long long mebibytes; };
int nvmlDeviceGetAttributes_v2(void *handle, struct attributes *out) {
    struct instance *slice = instance_of(handle);
    ENTER(card_of(handle));
    if (!slice) return NOT_SUPPORTED;
    memset(out, 0, sizeof *out);
    out->multiprocessors = slice->multiprocessors; out->slices = slice->slices;
    out->compute = slice->compute; out->mebibytes = slice->mebibytes;
    return 0;
}
int nvmlDeviceGetAddressingMode(void *handle, unsigned *out) {
    ENTER(card_of(handle));
    if (card_of(handle)->addressing < 0) return NOT_SUPPORTED;
    out[1] = card_of(handle)->addressing;
    return 0;
}
int nvmlDeviceGetC2cModeInfoV(void *handle, unsigned *out) {
    ENTER(card_of(handle));
    if (card_of(handle)->c2c < 0) return NOT_SUPPORTED;
    *out = card_of(handle)->c2c;
    return 0;
}
int nvmlDeviceGetMemoryAffinity(void *handle, unsigned size, unsigned long *nodes, unsigned scope) {
    (void)scope;
    ENTER(card_of(handle));
    if (card_of(handle)->node < 0) return NOT_SUPPORTED;
    memset(nodes, 0, size * sizeof *nodes);
    nodes[0] = 1ul << card_of(handle)->node;
    return 0;
}
#endif
