/* embedding.h - the places of the embedding op's inputs. */
#ifndef CAB_OPS_EMBEDDING_H
#define CAB_OPS_EMBEDDING_H

enum { CAB_EMBEDDING_IDS, CAB_EMBEDDING_TABLE, CAB_EMBEDDING_POSITIONS, CAB_EMBEDDING_FIRST, CAB_EMBEDDING_INPUTS };

#endif
